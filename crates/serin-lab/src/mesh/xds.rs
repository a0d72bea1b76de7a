//! The ADS server: gRPC in and out of `session`. Deliberately holds no logic of its own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::session::{Session, Snapshot, Verdict};

/// The stream of answers to one Envoy.
type Answers = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

struct Ads {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    verdicts: mpsc::Sender<Verdict>,
}

/// Serves ADS on loopback until `stop`; the address, at a port of the kernel's choice.
///
/// # Errors
/// No port is to be had.
pub(super) async fn serve(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    verdicts: mpsc::Sender<Verdict>,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let service = AggregatedDiscoveryServiceServer::new(Ads { snapshots, verdicts });
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(async move {
        // Envoy holds its stream open for ever, so that a graceful end would never come.
        tokio::select! {
            ended = server.serve_with_incoming(TcpListenerStream::new(listener)) => if let Err(error) = ended { tracing::warn!(%error, "ADS") },
            () = stop.cancelled() => {}
        }
    });
    Ok(address)
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Answers;
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(&self, request: Request<Streaming<DiscoveryRequest>>) -> Result<Response<Answers>, Status> {
        let mut asked = request.into_inner();
        let (answers, receiver) = mpsc::channel(64);
        let (mut snapshots, verdicts) = (self.snapshots.clone(), self.verdicts.clone());
        tokio::spawn(async move {
            let first = snapshots.borrow_and_update().clone();
            let mut session = Session::new(first);
            loop {
                tokio::select! {
                    message = asked.message() => match message {
                        Ok(Some(request)) => if let Some(verdict) = session.hear(&request) {
                            // Nobody listening any more means that the lab ends.
                            let _ = verdicts.send(verdict).await;
                        },
                        Ok(None) | Err(_) => return,
                    },
                    changed = snapshots.changed() => match changed {
                        Ok(()) => session.aim(snapshots.borrow_and_update().clone()),
                        Err(_) => return,
                    },
                }
                let (out, verdict) = session.speak();
                for response in out {
                    if answers.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                if let Some(verdict) = verdict {
                    let _ = verdicts.send(verdict).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the lab speaks the state of the world; set api_type: GRPC"))
    }
}
