//! Azurite: Azure Blob Storage's API over a directory. It checks keys and signatures as Azure does.

use std::process::Command;
use std::time::Duration;

use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder,
};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use object_store::{Attribute, Attributes, ClientOptions, ObjectStore as _, PutOptions};

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::{part, parts_dir, system};
use super::scratch::Scratch;
use super::wait::START;

/// Azurite's own account, which everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server of Azure Blob Storage's API on loopback, over plain HTTP, with one account.
#[derive(Debug)]
pub(crate) struct Azurite {
    _process: Process,
    port: FreePort,
    scratch: Scratch,
}

impl Azurite {
    /// Starts one without a container.
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("azurite");
        let port = FreePort::find();
        // Looked up for its message where it's missing.
        part("azurite-3.35.0", "package.json");
        let program = parts_dir().join("azurite-3.35.0/node_modules/azurite/dist/src/blob/main.js");
        let mut command = Command::new(system("node"));
        command
            .arg(program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.number().to_string()])
            .args(["--disableTelemetry", "--silent", "--location"])
            .arg(scratch.dir("blobs"));
        let process = Process::start("azurite", &command, &scratch.join("azurite.log"));
        let up = format!("http://{}/", port.address());
        // Whatever it answers, it's up.
        let answer = async || http::client().get(&up).send().await.ok().map(drop);
        process.wait_ready("an answer", START, answer).await;
        Self { _process: process, port, scratch }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// What a client finds in its environment, or in a Secret, to reach the account at `host`: this server's, or that
    /// of a proxy in front of it.
    pub(crate) fn env(&self, host: &str) -> [(&'static str, String); 3] {
        [
            ("AZURE_STORAGE_ENDPOINT", format!("http://{host}/{ACCOUNT}")),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
        ]
    }

    /// Makes a container.
    pub(crate) async fn make_container(&self, container: &str) {
        let url = format!("http://{}/{ACCOUNT}/{container}?restype=container", self.host());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = reqwest::Method::PUT;
        *request.uri_mut() = url.parse().expect("a URI");
        let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("a key"));
        AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request).expect("a signature");
        let headers = std::mem::take(request.headers_mut());
        let made = http::client().put(url).headers(headers).header("Content-Length", "0").send().await;
        assert!(
            made.as_ref().is_ok_and(|made| made.status().is_success()),
            "container {container}: {made:?}"
        );
    }

    fn client(&self, container: &str) -> MicrosoftAzure {
        MicrosoftAzureBuilder::new()
            .with_endpoint(format!("http://{}/{ACCOUNT}", self.host()))
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(container)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()
            .expect("a client of Azurite")
    }

    /// Puts a blob, in place of an older one.
    pub(crate) async fn put(&self, container: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        self.put_with(container, key, bytes.into(), Attributes::new()).await;
    }

    /// The same, with custom metadata.
    pub(crate) async fn put_described(
        &self,
        container: &str,
        key: &str,
        bytes: impl Into<Vec<u8>>,
        (name, value): (&'static str, String),
    ) {
        let metadata = Attributes::from_iter([(Attribute::Metadata(name.into()), value)]);
        self.put_with(container, key, bytes.into(), metadata).await;
    }

    async fn put_with(&self, container: &str, key: &str, bytes: Vec<u8>, attributes: Attributes) {
        let place = Key::parse(key).expect("a name that the client takes");
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = self.client(container).put_opts(&place, bytes.into(), options).await;
        assert!(put.is_ok(), "az://{container}/{key}: {put:?}");
    }

    /// A SAS token with which this blob, and nothing else, may be read for a minute.
    pub(crate) async fn sas(&self, container: &str, key: &str) -> String {
        let place = Key::parse(key).expect("a name that the client takes");
        let url =
            self.client(container).signed_url(reqwest::Method::GET, &place, Duration::from_secs(60)).await;
        url.expect("a signed URL").query().expect("a signature").to_owned()
    }
}
