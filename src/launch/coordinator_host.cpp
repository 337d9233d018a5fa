#include "launch/coordinator_host.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/text.h"

namespace poseidon::launch {

using runtime::kCoordinator;

CoordinatorHost::CoordinatorHost()
    : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), lane_(std::make_unique<runtime::real::RealLane>("coordinator")) {}

CoordinatorHost::~CoordinatorHost() {
  lane_->run([this] {
    coordinator_.reset();
    transport_.reset();
  });
  lane_.reset();
  ::close(wake_);
}

Status CoordinatorHost::open(const std::vector<std::byte>& secret, const CoordinatorHostOptions& options, cluster::CoordinatorListener listener) {
  const int nodes = options.coordinator.workers + options.coordinator.servers;
  Result<std::unique_ptr<runtime::real::TcpTransport>> transport = runtime::real::TcpTransport::open(
      *lane_, {.key = wire::job_key(secret),
               .self = kCoordinator,
               .listen_host = options.host,
               .listen_port = options.port,
               .tls = options.tls ? std::optional(runtime::real::TlsOptions{}) : std::nullopt,
               .admits = [nodes](Member peer) -> Status {
                 if (index(peer) < static_cast<std::uint32_t>(nodes)) return {};
                 return Error{ErrorCode::kRefused, base::concat("the job has no member ", index(peer))};
               }});
  if (!transport) return transport.error();
  transport_ = std::move(*transport);
  listener.on_start = [this, told = std::move(listener.on_start)] {
    started_ = true;
    wake();
    if (told) told();
  };
  listener.on_finish = [this] { settle(std::nullopt); };
  listener.on_fail = [this](const Error& why) { settle(why); };
  lane_->run([&] { coordinator_ = std::make_unique<cluster::Coordinator>(*lane_, *transport_, options.coordinator, std::move(listener)); });
  return {};
}

std::uint16_t CoordinatorHost::port() const { return transport_->port(); }

void CoordinatorHost::abort(const Error& why) {
  lane_->post([this, why] {
    if (coordinator_) coordinator_->abort(why);
  });
}

void CoordinatorHost::request_stop() {
  lane_->post([this] {
    if (coordinator_) coordinator_->request_stop();
  });
}

void CoordinatorHost::settle(std::optional<Error> why) {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    if (!error_) error_ = std::move(why);
  }
  wake();
}

int CoordinatorHost::joined() {
  int workers = 0;
  lane_->run([&] { workers = coordinator_ ? coordinator_->joined() : 0; });
  return workers;
}

bool CoordinatorHost::is_over() {
  const std::lock_guard lock(mutex_);
  return over_;
}

std::optional<Error> CoordinatorHost::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

void CoordinatorHost::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_, &one, sizeof one);
}

void CoordinatorHost::clear_wake() const {
  std::uint64_t ignored = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_, &ignored, sizeof ignored);
}

}  // namespace poseidon::launch
