// gRPC in C++ over a Unix socket: `grpc server|client PATH`, as src/worker.rs says.
#include "bench.grpc.pb.h"
#include "store.hpp"
#include "worker.hpp"
#include <grpcpp/grpcpp.h>

using grpc::ServerContext;
using grpc::Status;

namespace {

std::atomic<uint64_t> calls{0};

class Service final : public bench::Bench::Service {
  std::mutex mutex;
  store::Store documents;

  Status Nothing(ServerContext *, const bench::Empty *, bench::Empty *) override {
    calls++;
    return Status::OK;
  }
  Status Echo(ServerContext *, const bench::Bytes *request, bench::Bytes *reply) override {
    const std::string &from = request->data();
    std::string *to = reply->mutable_data();
    to->resize(from.size());
    worker::answer(from.data(), to->data(), from.size());
    calls++;
    return Status::OK;
  }
  Status Insert(ServerContext *, const bench::Value *document, bench::Inserted *reply) override {
    std::lock_guard<std::mutex> lock(mutex);
    reply->set_count(documents.insert(*document));
    calls++;
    return Status::OK;
  }
  Status Search(ServerContext *, const bench::Query *query, bench::Documents *reply) override {
    std::lock_guard<std::mutex> lock(mutex);
    documents.search(query->field(), query->value(), [&](const bench::Value &document) { *reply->add_documents() = document; });
    calls++;
    return Status::OK;
  }
};

void check(const Status &status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

class Connection final : public worker::Caller {
  std::unique_ptr<bench::Bench::Stub> stub;

public:
  explicit Connection(const std::string &address) {
    grpc::ChannelArguments arguments;
    // Connections of their own: channels to one address would share a socket.
    static std::atomic<int> number{0};
    arguments.SetInt("vernal.bench.connection", number++);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(64 << 20);
    stub = bench::Bench::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  uint64_t call(size_t size, uint64_t seed) override {
    grpc::ClientContext context;
    if (size == 0) {
      bench::Empty request, reply;
      check(stub->Nothing(&context, request, &reply));
      return 0;
    }
    bench::Bytes request, reply;
    request.mutable_data()->resize(size);
    worker::fill(request.mutable_data()->data(), size, seed);
    check(stub->Echo(&context, request, &reply));
    return worker::sum(reply.data().data(), reply.data().size());
  }

  uint64_t insert(std::string_view bytes) override {
    grpc::ClientContext context;
    bench::Value document;
    store::Reader(bytes).read(document);
    bench::Inserted reply;
    check(stub->Insert(&context, document, &reply));
    return reply.count();
  }

  uint64_t search(const std::string &field, int64_t value, bool whole) override {
    grpc::ClientContext context;
    bench::Query query;
    query.set_field(field);
    query.set_value(value);
    bench::Documents reply;
    check(stub->Search(&context, query, &reply));
    uint64_t sum = 0;
    for (const auto &document : reply.documents())
      sum = store::mix(sum, whole ? store::whole(document, 0) : store::some_fields(document));
    return sum;
  }
};

} // namespace

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const std::string side = argv[1], address = std::string("unix:") + argv[2];
  try {
    if (side == "client") {
      worker::client([&] { return std::make_unique<Connection>(address); });
      return 0;
    }
    Service service;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(64 << 20);
    builder.RegisterService(&service);
    auto server = builder.BuildAndStart();
    if (!server) throw std::runtime_error("cannot listen at " + address);
    worker::server(calls);
  } catch (const std::exception &e) {
    fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
