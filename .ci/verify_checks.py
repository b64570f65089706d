"""The checks of .ci/verify: a server, a target, and libraries that look at what arrives there. One function a check."""

import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import queue
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import jwt
import standardwebhooks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from verify_handler import IdTokens

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_SECS = 30


class Target:
    """A handler on loopback: answers 200, and keeps what it was sent."""

    def __init__(self):
        self.requests = queue.Queue()
        target = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                target.requests.put((self.headers, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Provider:
    """An OpenID provider on loopback whose keys, tokens and judgements are PyJWT's."""

    def __init__(self):
        self.key, self.client_key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        self.judged = []
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                documents = {
                    "/.well-known/openid-configuration": {"issuer": provider.url, "jwks_uri": provider.url + "/jwks"},
                    "/jwks": {"keys": [provider.jwk()]},
                }
                self.answer(200, documents[self.path])

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                self.answer(*provider.token(dict(urllib.parse.parse_qsl(body))))

            def answer(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jwk(self):
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {**public, "kid": "k1", "use": "sig", "alg": "RS256"}

    def sign(self, claims, key=None):
        now = int(time.time())
        claims = {"iss": self.url, "sub": "robot", "iat": now, "exp": now + 300, **claims}
        return jwt.encode(claims, key or self.key, algorithm="RS256", headers={"kid": "k1"})

    def token(self, form):
        """A client by its signed assertion (RFC 7523 section 2.2), or a service account by its (section 2.1)."""
        kind = "assertion" if "assertion" in form else "client_assertion"
        try:
            claims = jwt.decode(
                form[kind],
                self.client_key.public_key(),
                algorithms=["RS256"],
                audience=self.url + "/token",
                options={"require": ["iss", "aud", "iat", "exp"]},
            )
        except jwt.InvalidTokenError as error:
            self.judged.append((kind, repr(error)))
            return 400, {"error": "invalid_client"}
        self.judged.append((kind, claims["iss"]))
        if kind == "assertion":
            return 200, {"id_token": self.sign({"aud": claims["target_audience"]})}
        token = self.sign({"aud": form["audience"], "scope": form["scope"]})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 300}

    def verify(self, headers, audience):
        scheme, token = headers["authorization"].split(" ")
        assert scheme == "Bearer"
        return jwt.decode(token, self.key.public_key(), algorithms=["RS256"], audience=audience, issuer=self.url)


class Server:
    """The real server over a new directory, under the configuration that docs/security.md shows."""

    def __init__(self, binary, home):
        self.home = pathlib.Path(home)
        self.config = self.home / "config.yaml"
        self.config.write_text("")
        command = [str(ROOT / binary), "serve", "--config", str(self.config), "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.home / "data"), "--certs-dir", str(self.home / "certs")]
        self.log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=self.log, text=True)
        # Ends without a line when the server ends instead.
        ready = re.search(r"sendoff is ready on (https://\S+)", self.process.stdout.readline())
        if not ready:
            raise AssertionError((self.home / "log").read_text())
        self.url = ready.group(1)
        self.ca_file = str(self.home / "certs" / "ca.pem")
        self.tls = ssl.create_default_context(cafile=self.ca_file)
        self.key = (self.home / "data" / "admin.key").read_text().strip()

    def told(self, event):
        """How often the log tells of an event."""
        return (self.home / "log").read_text().count(f'"event":"{event}"')

    def configure(self, text):
        """Puts a configuration in force while the server runs."""
        before = self.told("config_reloaded")
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE_SECS
        while self.told("config_reloaded") == before:
            if self.told("config_refused") or time.monotonic() > deadline:
                raise AssertionError((self.home / "log").read_text())
            time.sleep(0.05)

    def post(self, task):
        request = urllib.request.Request(
            self.url + "/tasks",
            json.dumps({"task_type": "http_request", **task}).encode(),
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, context=self.tls, timeout=10) as answer:
            return json.load(answer)

    def asks(self, token):
        """The status of what is asked with a token."""
        request = urllib.request.Request(self.url + "/tasks", headers={"authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE_SECS)
        self.log.close()
        assert code == 0, (self.home / "log").read_text()


def documented():
    return (ROOT / "docs" / "security.md").read_text()


def configuration(server, target):
    """The configuration of docs/security.md, with the addresses of here."""
    section = documented().split("## Our own ID tokens (OIDC)\n", 1)[1]
    text = re.search(r"```yaml\n(.*?)```", section, re.S).group(1)
    for there, here in [
        ("https://queue.example.com:8443", server.url),
        ("handlers.example.com", target.origin.removeprefix("http://")),
    ]:
        assert there in text, f"docs/security.md does not name {there}"
        text = text.replace(there, here)
    return text


def sent(server, target, task):
    """The headers with which a task reaches its target, and its body."""
    server.post({**task, "payload": {"url": target.origin + "/", **task.get("payload", {})}})
    return target.requests.get(timeout=PATIENCE_SECS)


def refuses(tokens, authorization, expected):
    """The library says no, for the reason that is meant."""
    try:
        tokens.claims(authorization)
    except expected:
        return
    raise AssertionError(f"a token passed that should have met {expected.__name__}")


def unsigned(token):
    """The same claims under a header that asks for no signature."""
    header = base64.urlsafe_b64decode(token.split(".")[0] + "==")
    header = base64.urlsafe_b64encode(header.replace(b"ES256", b"none")).rstrip(b"=").decode()
    return ".".join([header, token.split(".")[1], ""])


def changed(token):
    """The same signature under other claims."""
    head, claims, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    claims["sub"] = "somebody-else"
    claims = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return ".".join([head, claims, signature])


def check_id_token(server, target):
    shown = (ROOT / ".ci" / "verify_handler.py").read_text().split('"""\n', 1)[1].strip()
    assert shown in documented(), "docs/security.md does not show .ci/verify_handler.py as it is"
    server.configure(configuration(server, target))

    tokens = IdTokens(server.url, target.origin, server.ca_file)
    headers, _ = sent(server, target, {"queue": "orders"})
    authorization = headers["authorization"]
    claims = tokens.claims(authorization)
    assert claims["sub"] == "handlers", claims
    assert claims["sendoff"] == {"task_id": headers["sendoff-task-id"], "queue": "orders", "attempt": 1}, claims
    again, _ = sent(server, target, {"queue": "orders"})
    assert tokens.claims(again["authorization"])["jti"] != claims["jti"], "two calls with one token"

    other, _ = sent(server, target, {"payload": {"auth": "reports"}})
    assert IdTokens(server.url, "https://reports.example.com", server.ca_file).claims(other["authorization"])
    refuses(tokens, other["authorization"], jwt.InvalidAudienceError)
    token = authorization.split(" ")[1]
    refuses(tokens, f"Bearer {changed(token)}", jwt.InvalidSignatureError)
    refuses(tokens, f"Bearer {unsigned(token)}", jwt.InvalidAlgorithmError)
    refuses(tokens, None, jwt.InvalidTokenError)
    tokens.issuer = "https://elsewhere.example.com"
    refuses(tokens, authorization, jwt.InvalidIssuerError)
    print("PyJWT verifies the ID token of a call, and refuses the others")


def check_callers(server, provider):
    server.configure(f"""
callers:
  jwt:
    company:
      issuer: "{provider.url}"
      audience: [sendoff]
      grants: {{ ops: {{ claim: groups, value: ops, scopes: [read] }} }}
""")
    good = {"aud": "sendoff", "groups": ["ops"]}
    assert server.asks(provider.sign(good)) == 200
    assert server.asks(provider.sign({**good, "groups": ["dev"]})) == 403
    assert server.asks(provider.sign({**good, "aud": "elsewhere"})) == 401
    assert server.asks(provider.sign({**good, "exp": int(time.time()) - 60})) == 401
    assert server.asks(provider.sign(good, provider.client_key)) == 401, "another key under the same name"
    head, claims, _ = provider.sign(good).split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    head = base64.urlsafe_b64encode(json.dumps({**header, "alg": "HS256"}).encode()).rstrip(b"=").decode()
    public = provider.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forged = hmac.new(public, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    forged = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
    assert server.asks(f"{head}.{claims}.{forged}") == 401, "the public key as a shared secret"
    print("tokens that PyJWT signs are let in, and the others are not")


def check_assertions(server, target, provider):
    pem = provider.client_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "me@p.example", "private_key": pem, "private_key_id": "k1"}
    (server.home / "client.pem").write_text(pem)
    (server.home / "account.json").write_text(json.dumps({**account, "token_uri": provider.url + "/token"}))
    hosts = json.dumps([target.origin.removeprefix("http://")])
    server.configure(f"""
credentials:
  client:
    kind: oauth2_client_credentials
    token_url: "{provider.url}/token"
    client_id: me
    client_auth: private_key_jwt
    private_key: "file:client.pem"
    key_id: k1
    scopes: [charge, refund]
    audience: "https://crm.example.com"
    hosts: {hosts}
  account: {{ kind: service_account, key: "file:account.json", hosts: {hosts} }}
""")
    headers, _ = sent(server, target, {"payload": {"auth": "client"}})
    assert provider.verify(headers, "https://crm.example.com")["scope"] == "charge refund"
    headers, _ = sent(server, target, {"payload": {"auth": "account"}})
    assert provider.verify(headers, target.origin)["aud"] == target.origin
    assert provider.judged == [("client_assertion", "me"), ("assertion", "me@p.example")], provider.judged
    print("PyJWT verifies the assertions by which tokens are fetched, and the tokens reach the target")


def check_webhook(server, target):
    secrets = ["whsec_" + base64.b64encode(bytes([n] * 32)).decode() for n in range(3)]
    for n, secret in enumerate(secrets):
        (server.home / f"secret-{n}").write_text(secret)
    hosts = json.dumps([target.origin.removeprefix("http://")])
    server.configure(f"""
server: {{ public_url: "{server.url}" }}
credentials:
  signed: {{ kind: standard_webhooks, hosts: {hosts}, secrets: ["file:secret-0", "file:secret-1"] }}
  both: {{ kind: oidc, hosts: {hosts}, also: [signed] }}
""")
    order = {"order": 7, "to": "Zoë"}
    for auth in ["signed", "both"]:
        headers, body = sent(server, target, {"payload": {"auth": auth, "body": order}})
        for secret in secrets[:2]:
            assert standardwebhooks.Webhook(secret).verify(body, dict(headers)) == order
    tokens = IdTokens(server.url, target.origin, server.ca_file)
    assert tokens.claims(headers["authorization"])["sub"] == "both"

    old = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 301)}
    for secret, data, given in [(secrets[2], body, headers), (secrets[0], body + b" ", headers), (secrets[0], body, old)]:
        try:
            standardwebhooks.Webhook(secret).verify(data, dict(given))
        except standardwebhooks.WebhookVerificationError:
            continue
        raise AssertionError("a signature passed that should not have")
    print("standardwebhooks verifies the signature of a call, and refuses the others")


def main(binary):
    with tempfile.TemporaryDirectory() as home:
        server, target, provider = Server(binary, home), Target(), Provider()
        try:
            check_id_token(server, target)
            check_webhook(server, target)
            check_callers(server, provider)
            check_assertions(server, target, provider)
        except BaseException:
            server.process.kill()
            raise
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
