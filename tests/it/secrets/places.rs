//! Where secrets are put: the configuration, the API, tasks, and what callers show.

use std::path::Path;

use super::*;
use crate::support::issuer::document_of;

/// What a server is set among.
pub(super) struct Places<'a> {
    pub(super) dir: &'a Path,
    pub(super) target: &'a Target,
    pub(super) issuer: &'a Target,
    pub(super) login: &'a Issuer,
}

impl Places<'_> {
    /// Writes the configuration and the files that it names; gives the environment of the server.
    pub(super) fn configure(&self, secrets: &mut Secrets) -> Vec<(&'static str, String)> {
        let (client_key, _) = secrets.key("private_key_jwt");
        let (account_key, _) = secrets.key("a service account");
        let (mtls_key, pair) = secrets.key("mtls");
        let certificate = rcgen::CertificateParams::new(["me".to_owned()]).unwrap().self_signed(&pair).unwrap();
        write(self.dir, "client.pem", &client_key);
        write(self.dir, "mtls.pem", &certificate.pem());
        write(self.dir, "mtls.key", &mtls_key);
        let account = json!({
            "type": "service_account", "private_key_id": "k", "private_key": account_key,
            "client_email": "me@p.example", "token_uri": self.issuer.url("/refused"),
        });
        write(self.dir, "account.json", &account.to_string());
        let sealing = STANDARD.encode([0x5a_u8; 32]);
        secrets.known("credentials_key", &sealing);
        write(self.dir, "credentials.key", &sealing);
        write(self.dir, "header", &secrets.put("header"));
        let login = self.login.url();
        let (good, refused) = (self.issuer.url("/token"), self.issuer.url("/refused"));
        let config = format!(
            r#"
logging: {{ format: json, level: trace }}
server: {{ public_url: "https://127.0.0.1:9" }}
credentials_key: "file:credentials.key"
callers: {{ jwt: {{ login: {{ issuer: "{login}", audience: [sendoff], grants: {{ all: {{ claim: groups, value: "ops", scopes: [read] }} }} }} }} }}
credentials:
  bearer: {{ kind: bearer, token: "env:BEARER", hosts: ["127.0.0.1:*"] }}
  basic: {{ kind: basic, username: me, password: "env:BASIC", hosts: ["127.0.0.1:*"], also: [signed, header] }}
  header: {{ kind: header, name: x-api-key, value: "file:header", hosts: ["127.0.0.1:*"] }}
  {VISIBLE}: {{ kind: oauth2_client_credentials, token_url: "{good}", client_id: me, client_secret: "env:CLIENT", hosts: ["127.0.0.1:*"] }}
  refused: {{ kind: oauth2_client_credentials, token_url: "{refused}", client_id: me, client_auth: client_secret_post, client_secret: "env:CLIENT_POST", hosts: ["127.0.0.1:*"] }}
  by-key: {{ kind: oauth2_client_credentials, token_url: "{refused}", client_id: me, client_auth: private_key_jwt, private_key: "file:client.pem", hosts: ["127.0.0.1:*"] }}
  account: {{ kind: service_account, key: "file:account.json", hosts: ["127.0.0.1:*"] }}
  own: {{ kind: oidc, hosts: ["127.0.0.1:*"] }}
  mtls: {{ kind: mtls, certificate: "file:mtls.pem", private_key: "file:mtls.key", hosts: ["127.0.0.1:*"] }}
  signed: {{ kind: standard_webhooks, secrets: ["env:HOOK", "env:HOOK_NEXT"], hosts: ["127.0.0.1:*"] }}
"#
        );
        std::fs::write(self.dir.join("config.yaml"), config).unwrap();
        vec![
            ("BEARER", secrets.put("bearer")),
            ("BASIC", secrets.put("basic")),
            ("CLIENT", secrets.put("client_secret_basic")),
            ("CLIENT_POST", secrets.put("client_secret_post")),
            ("HOOK", secrets.webhook("standard_webhooks", 0x31)),
            ("HOOK_NEXT", secrets.webhook("the next of standard_webhooks", 0x32)),
        ]
    }

    /// The secrets that the server has made for itself.
    pub(super) fn made(&self, secrets: &mut Secrets) {
        let read = |file: &str| std::fs::read_to_string(self.dir.join(file)).unwrap();
        let line = |pem: &str| pem.lines().nth(2).expect("a line").to_owned();
        secrets.known("the server's key", &line(&read("certs/server.key")));
        secrets.known("the CA's key", &line(&read("certs/ca.key")));
        let signing: Value = serde_json::from_str(&read("data/oidc-keys.json")).unwrap();
        let pem = signing["signing_keys"][0]["private_key"].as_str().expect("a key");
        secrets.known("the key of ID tokens", &line(pem));
        secrets.known("the admin key", read("data/admin.key").trim().rsplit('_').next().expect("its secret"));
    }

    /// Gives credentials and keys by the API, good ones and bad.
    pub(super) async fn give(&self, client: &Client, secrets: &mut Secrets, hay: &mut Haystacks) {
        let put = (Method::PUT, "/credentials/given");
        let mut given = json!({"kind": "bearer", "hosts": ["127.0.0.1:*"], "token": secrets.put("given by the API")});
        ask(client, put.clone(), Some(&given), hay).await;
        given["token"] = json!(format!("{} x", secrets.put("given and wrong")));
        ask(client, put.clone(), Some(&given), hay).await;
        let unknown = json!({"kind": "bearer", "tokn": secrets.put("given under a wrong key")});
        ask(client, put.clone(), Some(&unknown), hay).await;
        ask(client, put, Some(&json!(secrets.put("given alone"))), hay).await;
        // The answer that makes a key is where its secret is told: it is not among the answers that are searched.
        let made = client.post("/keys", &json!({"name": VISIBLE, "scopes": ["read"]})).await;
        let key = made.body["key"].as_str().expect("a key").to_owned();
        secrets.known("an API key", key.rsplit('_').next().expect("its secret"));
        ask(&client.with_key(&key), (Method::GET, "/tasks"), None, hay).await;
        ask(client, (Method::DELETE, &format!("/keys/{key}")), None, hay).await;
    }

    /// Tasks that succeed, fail, wait and die, with each credential, and with secrets of their own.
    pub(super) async fn call(&self, client: &Client, secrets: &mut Secrets, hay: &mut Haystacks) {
        let token = secrets.put("a token that was fetched");
        let json = [("content-type", "application/json")];
        let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 600}).to_string();
        self.issuer.on("/token", [Reply::with(200, &json, body.as_bytes())]);
        let body =
            json!({"error": "invalid_client", "error_description": secrets.put("what an issuer says")}).to_string();
        self.issuer.on("/refused", [Reply::with(401, &json, body.as_bytes())]);
        self.target.on("/broken", [Reply::reset()]);
        self.target.on("/no", [Reply::status(401)]);
        let (authorization, cookie) = (secrets.put("a task's authorization"), secrets.put("a task's cookie"));
        for path in ["/", "/broken", "/no"] {
            for auth in [VISIBLE, "bearer", "basic", "header", "refused", "by-key", "account", "own", "given", "none"] {
                let mut task = json!({
                    "task_type": "http_request", "labels": {"seen": VISIBLE}, "retry": {"max_attempts": 1},
                    "task_id": format!("{VISIBLE}-{auth}-{}", path.len()), "payload": {"url": self.target.url(path)},
                });
                let (field, value) = match auth {
                    "none" => ("headers", json!({"authorization": authorization, "cookie": cookie})),
                    auth => ("auth", json!(auth)),
                };
                task["payload"][field] = value;
                let made = ask(client, (Method::POST, "/tasks"), Some(&task), hay).await;
                let id = made["task_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
                ended(client, &id, hay).await;
            }
        }
        for (place, payload) in [
            ("a URL with a password", json!({"url": format!("https://me:{}@a.example/", secrets.put("userinfo"))})),
            ("a secret for a name", json!({"url": "https://a.example/", "auth": secrets.put("auth is no name") + " "})),
        ] {
            let task = json!({"task_type": "http_request", "payload": payload});
            let answer = ask(client, (Method::POST, "/tasks"), Some(&task), hay).await;
            assert_eq!(answer["status"], 422, "{place}: {answer}");
        }
    }

    /// Callers with right, wrong and old keys and tokens.
    pub(super) async fn callers(&self, client: &Client, signer: &Signer, secrets: &mut Secrets, hay: &mut Haystacks) {
        let now = Clock::system().now().wall;
        let good = signer.sign(&self.login.claims(now, &json!({"groups": ["ops"]})), |_| {});
        let old = signer.sign(&self.login.claims(now, &json!({"groups": ["ops"], "exp": 1_000_000_000})), |_| {});
        let wrong = format!("so_abcdefgh_{}", secrets.put("a wrong key"));
        secrets.known("a token of a caller", &good);
        secrets.known("an old token of a caller", &old);
        for (shown, status) in [(good, 200), (old, 401), (wrong, 401)] {
            let holder = client.with_key(&shown);
            let answer = holder.get("/queues").await;
            assert_eq!(answer.status, status, "{:?}", answer.body);
            hay.add("answers", format!("{:?} {}", answer.headers, answer.body).as_bytes());
        }
        self.login
            .target
            .on("/keys", [document_of(&json!({"keys": [{"k": secrets.put("an issuer's document")}]}), &[])]);
        let other = Signer::ec("two");
        let unknown = other.sign(&self.login.claims(now, &json!({})), |_| {});
        secrets.known("a token of an unknown key", &unknown);
        let answer = client.with_key(&unknown).get("/queues").await;
        hay.add("answers", format!("{:?} {}", answer.headers, answer.body).as_bytes());
    }

    /// Waits until a reload was refused.
    pub(super) async fn refused_reload(&self, client: &Client, hay: &mut Haystacks) {
        for _ in 0..2_000 {
            let metrics = ask(client, (Method::GET, "/metrics"), None, hay).await;
            let refused = r#"sendoff_config_reloads_total{outcome="refused"} 1"#;
            if metrics.as_str().is_some_and(|text| text.contains(refused)) {
                return;
            }
        }
        panic!("the reload was not refused");
    }
}
