//! gRPC in Rust over a Unix socket, on one tokio thread for each side.
//!
//! A polling side keeps a task that never sleeps, so that the runtime asks the kernel for events without waiting for them.

use super::fail;
use crate::cooldb::{Depth, Kind, Reader, Step, Store, Value, fold};
use crate::plan::Wait;
use crate::proto::bench_client::BenchClient;
use crate::proto::bench_server::{Bench, BenchServer};
use crate::proto::{self, Bytes, Documents, Empty, Inserted, Query, value::Kind as Of};
use crate::worker::{Caller, Serving};
use crate::{Result, payload};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

fn runtime(wait: Wait) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if wait == Wait::Poll {
        // Ask for events after every task.
        builder.event_interval(1);
    }
    let runtime = builder.enable_all().build().map_err(fail("runtime"))?;
    if wait == Wait::Poll {
        runtime.spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
    }
    Ok(runtime)
}

struct Answers {
    serving: &'static Serving,
    store: Mutex<Store<Box<proto::Value>>>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl Bench for Answers {
    async fn nothing(&self, _: Request<Empty>) -> Answer<Empty> {
        self.serving.answered_alone();
        Ok(Response::new(Empty {}))
    }

    async fn echo(&self, request: Request<Bytes>) -> Answer<Bytes> {
        let request = request.into_inner().data;
        let mut data = vec![0; request.len()];
        payload::answer(&request, &mut data);
        self.serving.answered_alone();
        Ok(Response::new(Bytes { data }))
    }

    async fn insert(&self, request: Request<proto::Value>) -> Answer<Inserted> {
        let document = request.into_inner();
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        self.serving.answered_alone();
        Ok(Response::new(Inserted {
            count: store.insert(Box::new(document)),
        }))
    }

    async fn search(&self, request: Request<Query>) -> Answer<Documents> {
        let query = request.into_inner();
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let found = store.search(&query.field, query.value);
        let documents = found.map(|d| proto::Value::clone(d)).collect();
        self.serving.answered_alone();
        Ok(Response::new(Documents { documents }))
    }
}

/// Serves until the process ends.
pub fn serve(wait: Wait, at: &Path, serving: &'static Serving) -> Result<()> {
    runtime(wait)?.block_on(async move {
        let listener = UnixListener::bind(at).map_err(fail("bind"))?;
        serving.ready();
        let answers = Answers {
            serving,
            store: Mutex::default(),
        };
        Server::builder()
            .add_service(BenchServer::new(answers))
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await
            .map_err(fail("serve"))
    })
}

/// The client's side.
pub struct Connection {
    runtime: Runtime,
    client: BenchClient<Channel>,
}

impl Connection {
    /// Connects.
    pub fn open(wait: Wait, at: &Path) -> Result<Self> {
        let runtime = runtime(wait)?;
        let at = at.to_owned();
        let channel = runtime
            .block_on(async {
                // The name is not used: the connector knows the socket.
                Endpoint::from_static("http://bench")
                    .connect_with_connector(tower::service_fn(move |_: Uri| {
                        let at = at.clone();
                        async move {
                            Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(at).await?))
                        }
                    }))
                    .await
            })
            .map_err(fail("connect"))?;
        Ok(Self {
            runtime,
            client: BenchClient::new(channel),
        })
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        let client = &mut self.client;
        self.runtime
            .block_on(async {
                if size == 0 {
                    client.nothing(Empty {}).await?;
                    return Ok(0);
                }
                let mut data = vec![0; size];
                payload::fill(&mut data, seed);
                let reply = client.echo(Bytes { data }).await?.into_inner();
                Ok(payload::sum(&reply.data))
            })
            .map_err(fail::<Status>("call"))
    }

    fn insert(&mut self, document: &[u8]) -> Result<u64> {
        let document = decode(&mut Reader::new(document))?;
        self.runtime
            .block_on(self.client.insert(document))
            .map(|reply| reply.into_inner().count)
            .map_err(fail("insert"))
    }

    fn search(&mut self, field: &str, value: i64, depth: Depth) -> Result<u64> {
        let query = Query {
            field: field.to_owned(),
            value,
        };
        let found = self
            .runtime
            .block_on(self.client.search(query))
            .map_err(fail("search"))?;
        Ok(fold(&found.into_inner().documents, depth))
    }
}

fn decode(reader: &mut Reader) -> Result<proto::Value> {
    let kind = match reader.step()? {
        Step::Null => None,
        Step::Bool(b) => Some(Of::Flag(b)),
        Step::Int(i) => Some(Of::Whole(i)),
        Step::Real(r) => Some(Of::Real(r)),
        Step::Text(t) => Some(Of::Text(t.to_owned())),
        Step::Array(n) => {
            let items = (0..n).map(|_| decode(reader)).collect::<Result<_>>()?;
            Some(Of::Array(proto::Array { items }))
        }
        Step::Object(n) => {
            let mut fields = Vec::with_capacity(n.min(1024));
            for _ in 0..n {
                fields.push(proto::Field {
                    name: reader.text()?.to_owned(),
                    value: Some(decode(reader)?),
                });
            }
            Some(Of::Object(proto::Object { fields }))
        }
    };
    Ok(proto::Value { kind })
}

/// What a member without a value is.
static NULL: proto::Value = proto::Value { kind: None };

impl Value for proto::Value {
    fn kind(&self) -> Kind<'_> {
        match &self.kind {
            None => Kind::Null,
            Some(Of::Flag(b)) => Kind::Bool(*b),
            Some(Of::Whole(i)) => Kind::Int(*i),
            Some(Of::Real(r)) => Kind::Real(*r),
            Some(Of::Text(t)) => Kind::Text(t.as_bytes()),
            Some(Of::Array(_)) => Kind::Array,
            Some(Of::Object(_)) => Kind::Object,
        }
    }

    fn items(&self) -> impl Iterator<Item = &Self> {
        match &self.kind {
            Some(Of::Array(array)) => array.items.iter(),
            _ => [].iter(),
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &Self)> {
        let fields = match &self.kind {
            Some(Of::Object(object)) => object.fields.as_slice(),
            _ => &[],
        };
        fields
            .iter()
            .map(|f| (f.name.as_bytes(), f.value.as_ref().unwrap_or(&NULL)))
    }
}
