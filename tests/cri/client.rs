//! Calls of CRI over its Unix socket, one at a time and waited for.

use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A call that takes longer has hung. The slowest honest one, a sandbox on a busy machine, takes
/// a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a runtime.
pub struct Cri {
    executor: tokio::runtime::Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to the socket at `path`; fails at once where nobody listens.
    pub fn connect(path: &str) -> Result<Self, String> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let executor = executor.expect("a runtime of one thread");
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).expect("a path");
        let channel = executor.block_on(endpoint.connect());
        let channel = channel.map_err(|error| format!("{path}: {error:?}"))?;
        Ok(Self { executor, channel })
    }

    /// Calls `method` of CRI's `service` (`RuntimeService`, `ImageService`); the error is the
    /// runtime's own text.
    pub fn call<A>(
        &self,
        service: &str,
        method: &str,
        request: impl Message + 'static,
    ) -> Result<A, String>
    where
        A: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.{service}/{method}").parse().expect("a path");
        let mut client = Grpc::new(self.channel.clone());
        let answer = self.executor.block_on(async {
            let call = async {
                client.ready().await.map_err(|error| format!("{error:?}"))?;
                let codec = ProstCodec::default();
                let answer = client.unary(tonic::Request::new(request), path, codec).await;
                answer.map_err(|status| status.message().to_owned())
            };
            tokio::time::timeout(PATIENCE, call).await
        });
        let answer = answer.unwrap_or_else(|_| panic!("{method} took more than {PATIENCE:?}"));
        Ok(answer?.into_inner())
    }

    /// [`Cri::call`] of the RuntimeService, which must succeed.
    pub fn ok<A>(&self, method: &str, request: impl Message + 'static) -> A
    where
        A: Message + Default + 'static,
    {
        let answer = self.call("RuntimeService", method, request);
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}
