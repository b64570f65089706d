"""How a handler verifies the ID tokens of its calls. docs/security.md shows the code below this line as it is."""

import json
import ssl
import urllib.request

import jwt  # pip install "PyJWT[crypto]"


class IdTokens:
    """The ID tokens of one sendoff, for one audience."""

    def __init__(self, issuer, audience, ca_file=None):
        """`ca_file`: certs/ca.pem of the server, where its certificate is of its local CA."""
        tls = ssl.create_default_context(cafile=ca_file)
        discovery = f"{issuer}/.well-known/openid-configuration"
        with urllib.request.urlopen(discovery, context=tls, timeout=10) as answer:
            found = json.load(answer)
        if found["issuer"] != issuer:
            raise ValueError(f"{discovery} is of another issuer")
        self.issuer, self.audience = issuer, audience
        # Keeps the keys, and fetches them again when a token names one that it does not know.
        self.keys = jwt.PyJWKClient(found["jwks_uri"], ssl_context=tls, timeout=10)

    def claims(self, authorization):
        """The claims of a request's `Authorization`; an exception when it is not for us. Then answer 401."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError("there is no bearer token")
        return jwt.decode(
            token,
            self.keys.get_signing_key_from_jwt(token).key,
            algorithms=["ES256"],
            issuer=self.issuer,
            audience=self.audience,
            leeway=30,  # seconds by which the two clocks may differ
            options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
        )
