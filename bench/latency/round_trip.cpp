// How long a push-pull of 4 bytes takes, against a bare TCP ping-pong of the same frames.
//
//   poseidon-round-trip [--pairs N] [--tls] [--json FILE]
//
// Two workers of a real job, each with its lane, and two threads that send a push frame and a sum frame to and fro over a socket of
// their own; all of it in this process, over loopback. They take turns, one round trip each, so that whatever else the machine does
// disturbs both alike. The push-pull is timed on its lane, from submit() to the callback; the other worker owns the tensor and has
// handed in its own gradient before. A ratio of the medians above 2 is a bad result.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/checksum.h"
#include "cluster/coordinator.h"
#include "cluster/worker.h"
#include "plan/partition.h"

namespace poseidon::bench {
namespace {

using namespace std::chrono_literals;
using Microseconds = std::chrono::duration<double, std::micro>;

constexpr std::size_t kTensorBytes = 4;
constexpr std::size_t kFrameBytes = wire::kHeaderBytes + kTensorBytes;
constexpr int kWarmUp = 200;
// What neither waits for: that the other worker's next gradient is there before the next round trip begins.
constexpr auto kPause = 200us;
constexpr auto kWaitMax = 10s;

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "poseidon-round-trip: %s\n", why.c_str());
  std::exit(1);
}

// Two connected sockets, and a thread that answers each frame on one of them with a frame of the same length.
class PingPong {
 public:
  PingPong() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    near_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool linked = ::bind(listener, reinterpret_cast<const sockaddr*>(&address), length) == 0 && ::listen(listener, 1) == 0 &&
                        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0 &&
                        ::connect(near_, reinterpret_cast<const sockaddr*>(&address), length) == 0;
    far_ = linked ? ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC) : -1;
    if (far_ < 0) give_up("no TCP over 127.0.0.1");
    ::close(listener);
    const int on = 1;
    for (const int fd : {near_, far_}) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    answerer_ = std::thread([this] {
      while (receive(far_)) send(far_);
    });
  }
  ~PingPong() {
    ::shutdown(near_, SHUT_RDWR);
    answerer_.join();
    ::close(near_);
    ::close(far_);
  }
  Microseconds once() {
    const auto begin = std::chrono::steady_clock::now();
    send(near_);
    if (!receive(near_)) give_up("the bare connection broke");
    return std::chrono::steady_clock::now() - begin;
  }

 private:
  static void send(int fd) {
    const std::array<std::byte, kFrameBytes> frame{};
    if (::send(fd, frame.data(), frame.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(frame.size())) give_up("the bare connection broke");
  }
  static bool receive(int fd) {
    std::array<std::byte, kFrameBytes> frame;
    return ::recv(fd, frame.data(), frame.size(), MSG_WAITALL) == static_cast<ssize_t>(frame.size());
  }

  int near_ = -1;
  int far_ = -1;
  std::thread answerer_;
};

// A job of two workers with one tensor of 4 bytes.
class Job {
 public:
  explicit Job(bool tls) : tls_(tls), lane_("bench hub") {
    model_.tensors.push_back({.name = "scalar", .shape = {1}, .dtype = DType::kFloat32});
    model_.layers.push_back({.name = "scalar", .tensors = {TensorId{0}}, .factor_rows = 0});
    plan::Plan plan;
    plan.workers = 2;
    plan.layers.push_back({.name = "scalar", .scheme = Scheme::kPs, .grid = {}, .owner = Rank{0}});
    owner_ = static_cast<std::size_t>(index(plan::partition(model_, plan)[0][0].server));
    auto transport = runtime::real::TcpTransport::open(lane_, {.key = wire::job_key(secret_),
                                                               .self = runtime::kCoordinator,
                                                               .tls = tls_ ? std::optional(runtime::real::TlsOptions{}) : std::nullopt});
    if (!transport) give_up(transport.error().message);
    transport_ = std::move(*transport);
    lane_.run([&] {
      coordinator_ = std::make_unique<cluster::Coordinator>(
          lane_, *transport_,
          cluster::CoordinatorOptions{.workers = 2, .plan_json = plan::to_json(plan), .link_bytes_per_second = 1.25e9},
          cluster::CoordinatorListener{.on_fail = [](const Error& why) { give_up(why.message); }});
    });
    std::array<std::future<std::unique_ptr<cluster::Worker>>, 2> joining;
    for (std::size_t rank = 0; rank < 2; ++rank) {
      joining[rank] = std::async(std::launch::async, [this, rank] { return join(rank); });
    }
    for (std::size_t rank = 0; rank < 2; ++rank) workers_[rank] = joining[rank].get();
    workers_[owner_]->lane().post([this] { hand_in(0); });
  }
  ~Job() {
    std::array<std::future<Status>, 2> leaving;
    for (std::size_t rank = 0; rank < 2; ++rank) {
      leaving[rank] = std::async(std::launch::async, [this, rank] { return workers_[rank]->leave(); });
    }
    for (std::future<Status>& left : leaving) left.wait();
    workers_ = {};
    lane_.run([this] {
      coordinator_.reset();
      transport_.reset();
    });
  }
  // One push-pull by the worker that does not own the tensor.
  Microseconds once() {
    cluster::Worker& worker = *workers_[1 - owner_];
    std::promise<Microseconds> taken;
    worker.lane().post([&, iteration = iteration_++] {
      const runtime::Time begin = worker.lane().now();
      worker.session().submit(TensorId{0}, iteration, gradient(1 - owner_), [&, begin](const Synced& synced) {
        if (synced.error) give_up(synced.error->message);
        taken.set_value(worker.lane().now() - begin);
      });
    });
    std::future<Microseconds> answer = taken.get_future();
    if (answer.wait_for(kWaitMax) != std::future_status::ready) give_up("a push-pull did not end");
    return answer.get();
  }

 private:
  std::unique_ptr<cluster::Worker> join(std::size_t rank) {
    auto worker = cluster::Worker::join(
        {.job = {Rank{static_cast<std::int32_t>(rank)}, 2, {"127.0.0.1", transport_->port()}, secret_, tls_},
         .model = model_,
         .values = {},
         .make_compute = [](runtime::Runtime&) { return std::make_unique<runtime::SimpleCompute>(); }});
    if (!worker) give_up(worker.error().message);
    return std::move(*worker);
  }
  DenseGradient gradient(std::size_t rank) {
    return {.gradient = {reinterpret_cast<std::byte*>(&values_[rank]), kTensorBytes, DType::kFloat32, {}}, .ready = {}, .samples = 1};
  }
  // On the owner's lane: its gradient of one iteration, and after the sum that of the next.
  void hand_in(Iteration iteration) {
    workers_[owner_]->session().submit(TensorId{0}, iteration, gradient(owner_), [this, iteration](const Synced& synced) {
      if (!synced.error) hand_in(iteration + 1);
    });
  }

  const bool tls_;
  const std::vector<std::byte> secret_ = base::random_bytes(32);
  Model model_;
  std::size_t owner_ = 0;
  std::array<float, 2> values_{};
  Iteration iteration_ = 0;
  runtime::real::RealLane lane_;
  std::unique_ptr<runtime::real::TcpTransport> transport_;
  std::unique_ptr<cluster::Coordinator> coordinator_;
  std::array<std::unique_ptr<cluster::Worker>, 2> workers_;
};

double quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(part * static_cast<double>(values.size() - 1))];
}

void report(const char* name, const std::vector<double>& values) {
  std::printf("%-22s median %8.2f   10 %% %8.2f   90 %% %8.2f   most %9.2f\n", name, quantile(values, 0.5), quantile(values, 0.1),
              quantile(values, 0.9), quantile(values, 1));
}

struct Options {
  int pairs = 5000;
  bool tls = false;
  std::string json;
};

Options read(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--tls") {
      options.tls = true;
    } else if (word == "--json" && !value.empty()) {
      options.json = value;
      ++i;
    } else if (word == "--pairs" && std::from_chars(value.data(), value.data() + value.size(), options.pairs).ec == std::errc() &&
               options.pairs > 0) {
      ++i;
    } else {
      give_up("usage: poseidon-round-trip [--pairs N] [--tls] [--json FILE]");
    }
  }
  return options;
}

int run(const Options& options) {
  Job job(options.tls);
  PingPong bare;
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int i = 0; i < kWarmUp + options.pairs; ++i) {
    std::this_thread::sleep_for(kPause);
    const double push_pull = job.once().count();
    std::this_thread::sleep_for(kPause);
    const double ping_pong = bare.once().count();
    if (i < kWarmUp) continue;
    ours.push_back(push_pull);
    theirs.push_back(ping_pong);
  }
  const double ratio = quantile(ours, 0.5) / quantile(theirs, 0.5);
  std::printf("%d pairs, microseconds\n", options.pairs);
  report(options.tls ? "push-pull, TLS" : "push-pull", ours);
  report("bare ping-pong", theirs);
  std::printf("ratio of the medians   %.2f\n", ratio);
  if (!options.json.empty()) {
    std::ofstream(options.json) << nlohmann::ordered_json{{"pairs", options.pairs},
                                                          {"tls", options.tls},
                                                          {"push_pull_microseconds", quantile(ours, 0.5)},
                                                          {"ping_pong_microseconds", quantile(theirs, 0.5)},
                                                          {"ratio", ratio}}
                                           .dump(2)
                                << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace poseidon::bench

int main(int argc, char** argv) { return poseidon::bench::run(poseidon::bench::read(argc, argv)); }
