//! `sendoff cert trust`.

use super::super::args::ServerOptions;
use super::super::exit::{Exit, Failed};
use super::super::say;
use super::{configured, served};

pub(super) fn run(options: ServerOptions, before: ServerOptions) -> Result<Exit, Failed> {
    let Some(ca) = served(&configured(options, before)?)?.ca else {
        let text = "the certificate comes from server.tls.certificate: whoever issued it is to be trusted, there is no \
                    CA of this server";
        return Err(Failed::told(Exit::Conflict, text));
    };
    // Commands are run from anywhere.
    let path = std::path::absolute(&ca.path).unwrap_or(ca.path);
    let path = path.display();
    let sha256 = &ca.fingerprint_sha256;
    say(&format!(
        "\
Clients have to trust this CA, and nothing else; its key never leaves the server's machine.
  {path}
  SHA-256 {sha256}
Copy the file to where the client is, compare the fingerprint (openssl x509 -noout -fingerprint -sha256 -in ca.pem), then:

one client
  curl      curl --cacert ca.pem …
  sendoff   sendoff --ca ca.pem …                     (or SENDOFF_CA=ca.pem)
  Python    requests.post(…, verify=\"ca.pem\")         (or SSL_CERT_FILE=ca.pem for httpx and urllib)
  Node.js   NODE_EXTRA_CA_CERTS=ca.pem node …
  Go        SSL_CERT_FILE=ca.pem …                    (trusts only what is in the file)
  Java      keytool -importcert -alias sendoff -file ca.pem -keystore trust.p12 -storepass changeit
            java -Djavax.net.ssl.trustStore=trust.p12 …

a whole machine: every program there then believes whatever this CA signs
  Debian, Ubuntu   sudo cp ca.pem /usr/local/share/ca-certificates/sendoff.crt && sudo update-ca-certificates
           undo    sudo rm /usr/local/share/ca-certificates/sendoff.crt && sudo update-ca-certificates --fresh
  Fedora, RHEL     sudo cp ca.pem /etc/pki/ca-trust/source/anchors/sendoff.pem && sudo update-ca-trust
           undo    sudo rm /etc/pki/ca-trust/source/anchors/sendoff.pem && sudo update-ca-trust
  macOS            sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.pem
           undo    sudo security remove-trusted-cert -d ca.pem"
    ));
    Ok(Exit::Ok)
}
