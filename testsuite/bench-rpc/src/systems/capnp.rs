//! Cap'n Proto's calls over a Unix socket, on one tokio thread for each side.

use super::fail;
use crate::worker::{Caller, Serving};
use crate::{Failure, Result, payload};
use capnp_rpc::{RpcSystem, rpc_twoparty_capnp, twoparty};
use futures::AsyncReadExt;
use std::path::Path;
use std::rc::Rc;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::bench_capnp::bench;

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(fail("runtime"))
}

type Network = twoparty::VatNetwork<
    futures::io::BufReader<futures::io::ReadHalf<tokio_util::compat::Compat<UnixStream>>>,
>;

fn network(stream: UnixStream, side: rpc_twoparty_capnp::Side) -> Box<Network> {
    let (reader, writer) = stream.compat().split();
    Box::new(twoparty::VatNetwork::new(
        futures::io::BufReader::new(reader),
        futures::io::BufWriter::new(writer),
        side,
        capnp::message::ReaderOptions::default(),
    ))
}

struct Answers(&'static Serving);

impl bench::Server for Answers {
    async fn nothing(
        self: Rc<Self>,
        _: bench::NothingParams,
        _: bench::NothingResults,
    ) -> std::result::Result<(), capnp::Error> {
        self.0.answered_alone();
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: bench::EchoParams,
        mut results: bench::EchoResults,
    ) -> std::result::Result<(), capnp::Error> {
        let request = params.get()?.get_data()?;
        payload::answer(request, results.get().init_data(request.len() as u32));
        self.0.answered_alone();
        Ok(())
    }
}

/// One thread answers all clients.
pub fn serve(at: &Path, serving: &'static Serving) -> Result<()> {
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = UnixListener::bind(at).map_err(fail("bind"))?;
        let answers: bench::Client = capnp_rpc::new_client(Answers(serving));
        serving.ready();
        loop {
            let (stream, _) = listener.accept().await.map_err(fail("accept"))?;
            let network = network(stream, rpc_twoparty_capnp::Side::Server);
            let system = RpcSystem::new(network, Some(answers.clone().client));
            tokio::task::spawn_local(system);
        }
    })
}

/// The client's side.
pub struct Connection {
    runtime: Runtime,
    local: LocalSet,
    client: bench::Client,
}

impl Connection {
    /// Connects.
    pub fn open(at: &Path) -> Result<Self> {
        let (runtime, local) = (runtime()?, LocalSet::new());
        let client = local.block_on(&runtime, async {
            let stream = UnixStream::connect(at).await.map_err(fail("connect"))?;
            let mut system =
                RpcSystem::new(network(stream, rpc_twoparty_capnp::Side::Client), None);
            let client: bench::Client = system.bootstrap(rpc_twoparty_capnp::Side::Server);
            tokio::task::spawn_local(system);
            Ok::<_, Failure>(client)
        })?;
        Ok(Self {
            runtime,
            local,
            client,
        })
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        let client = &self.client;
        self.local
            .block_on(&self.runtime, async move {
                if size == 0 {
                    client.nothing_request().send().promise.await?;
                    return Ok(0);
                }
                let mut request = client.echo_request();
                payload::fill(request.get().init_data(size as u32), seed);
                let reply = request.send().promise.await?;
                Ok(payload::sum(reply.get()?.get_data()?))
            })
            .map_err(fail::<capnp::Error>("call"))
    }
}
