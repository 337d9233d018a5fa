#include "cluster/worker_lanes.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "base/text.h"
#include "session/laned_engine.h"

namespace poseidon::cluster {

Result<std::unique_ptr<WorkerLanes>> WorkerLanes::open(const HomeLane& home, std::size_t count, const runtime::real::TcpOptions& tcp) {
  std::unique_ptr<WorkerLanes> lanes(new WorkerLanes(home));
  lanes->products_ = std::make_shared<runtime::ProductHome>(home.lane, home.compute);
  for (std::size_t l = 1; l < count; ++l) {
    auto other = std::make_unique<Other>(base::concat("poseidon lane ", l));
    runtime::real::TcpOptions options = tcp;
    options.lane = static_cast<std::uint32_t>(l);
    options.listen_port = 0;
    Result<std::unique_ptr<runtime::real::TcpTransport>> transport = runtime::real::TcpTransport::open(other->lane, std::move(options));
    if (!transport) return transport.error();
    other->transport = std::move(*transport);
    other->compute = std::make_unique<runtime::RelayCompute>(other->lane, lanes->products_);
    lanes->others_.push_back(std::move(other));
  }
  std::vector<runtime::LaneEnd> ends = {{&home.lane, &home.transport}};
  for (const auto& other : lanes->others_) ends.push_back({&other->lane, other->transport.get()});
  lanes->bundle_ = std::make_unique<runtime::LaneBundle>(std::move(ends));
  return lanes;
}

WorkerLanes::~WorkerLanes() {
  for (const auto& other : others_) {
    other->lane.run([&] {
      other->compute.reset();
      other->transport.reset();
    });
  }
}

void WorkerLanes::announce(MemberInfo& self) const {
  self.lanes = static_cast<std::uint32_t>(count());
  const std::string host = self.endpoints.front().host;
  for (std::size_t l = 0; l < others_.size(); ++l) {
    self.endpoints.push_back({host, others_[l]->transport->port(), runtime::Lane{static_cast<std::uint32_t>(l + 1)}});
  }
}

Status WorkerLanes::pin(const std::function<int(std::size_t)>& core_of) {
  if (const Status status = home_.lane.pin(core_of(0)); !status) return status;
  for (std::size_t l = 0; l < others_.size(); ++l) {
    if (const Status status = others_[l]->lane.pin(core_of(l + 1)); !status) return status;
  }
  return {};
}

Result<std::unique_ptr<session::Engine>> WorkerLanes::make_engine(session::EngineOptions options) {
  options.staging_bytes_max /= count();  // each lane's shard has its gate
  options.share.deal = std::make_shared<plan::LaneDeal>(options.model, options.plan, plan::LaneDealOptions{.lanes = count()});
  std::vector<runtime::Runtime*> runtimes = {&home_.lane};
  for (const auto& other : others_) runtimes.push_back(&other->lane);
  options.share.budget = std::make_shared<session::LinkBudget>(options.window_bytes, options.members, runtimes);
  Result<std::unique_ptr<session::EngineSession>> first =
      session::EngineSession::create(home_.lane, home_.transport, home_.compute, options);
  if (!first) return first.error();
  std::vector<session::EngineLane> parts;
  parts.push_back({&home_.lane, {}, std::move(*first)});
  for (const auto& other : others_) {
    options.share.lane = parts.size();
    parts.push_back({&other->lane, [&lane = other->lane](const runtime::Task& task) { lane.run(task); }, nullptr});
    // What the first lane could make of these options the others can.
    other->lane.run([&] {
      parts.back().engine = session::EngineSession::create(other->lane, *other->transport, *other->compute, options).value();
    });
  }
  return std::unique_ptr<session::Engine>(std::make_unique<session::LanedEngine>(options.model, options.share.deal, std::move(parts)));
}

runtime::LinkBytes WorkerLanes::link_bytes(const std::vector<Member>& peers) {
  runtime::LinkBytes all;
  for (const auto& other : others_) {
    other->lane.run([&] {
      for (const Member peer : peers) {
        const runtime::LinkBytes bytes = other->transport->link_bytes(peer);
        all.sent += bytes.sent;
        all.received += bytes.received;
      }
    });
  }
  return all;
}

void WorkerLanes::close() {
  bundle_.reset();
  products_->close();
}

Result<std::unique_ptr<session::Engine>> make_engine(const HomeLane& home, WorkerLanes* others, session::EngineOptions options) {
  if (others != nullptr) return others->make_engine(std::move(options));
  Result<std::unique_ptr<session::EngineSession>> session =
      session::EngineSession::create(home.lane, home.transport, home.compute, std::move(options));
  if (!session) return session.error();
  return std::unique_ptr<session::Engine>(std::move(*session));
}

runtime::real::LocalPlace local_place_from_environment() {
  const auto number = [](const char* name) -> std::size_t {
    const char* const text = std::getenv(name);
    std::size_t value = 0;
    if (text != nullptr) std::from_chars(text, text + std::string_view(text).size(), value);
    return value;
  };
  const runtime::real::LocalPlace place{number("POSEIDON_LOCAL_RANK"), number("POSEIDON_LOCAL_SIZE")};
  return place.rank < place.size ? place : runtime::real::LocalPlace{};
}

}  // namespace poseidon::cluster
