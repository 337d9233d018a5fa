#include "runtime/sim/sim_world.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::runtime::sim {
namespace {

Duration seconds(double value) { return Duration(static_cast<std::int64_t>(std::ceil(value * 1e9))); }

std::uint64_t mix(std::uint64_t digest, std::uint64_t value) {
  digest = (digest ^ value) * 0x100000001B3u;
  return digest ^ (digest >> 31);
}

}  // namespace

SimWorld::SimWorld(SimOptions options) : options_(options), random_(options.seed) {}
SimWorld::~SimWorld() = default;

SimMember& SimWorld::add(Member id) {
  auto [entry, is_new] = members_.emplace(id, std::make_unique<SimMember>(*this, id));
  POSEIDON_CHECK(is_new, "member ", index(id), " was added twice");
  return *entry->second;
}

SimMember& SimWorld::at(Member id) { return *members_.at(id); }

SimMember& SimWorld::add_lane(Member id) {
  SimMember& home = at(id);
  home.more_lanes_.push_back(std::make_unique<SimMember>(home, home.more_lanes_.size() + 1));
  return *home.more_lanes_.back();
}

SimMember* SimWorld::find(Member id, std::size_t lane) {
  SimMember& home = at(id);
  if (lane == 0) return &home;
  return lane <= home.more_lanes_.size() ? home.more_lanes_[lane - 1].get() : nullptr;
}

Duration SimWorld::jitter(Duration most) {
  return most.count() == 0 ? most : Duration(static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(most.count() + 1)));
}

void SimWorld::schedule(Time time, SimMember& owner, Task task) {
  std::uint32_t slot = static_cast<std::uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.push_back({&owner, std::move(task)});
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = {&owner, std::move(task)};
  }
  queue_.push_back({std::max(time, now_), next_order_++, slot});
  std::push_heap(queue_.begin(), queue_.end(), Later());
}

bool SimWorld::step() {
  if (queue_.empty()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), Later());
  const Entry entry = queue_.back();
  queue_.pop_back();
  // Out of its slot first: it may schedule others.
  SimMember& owner = *slots_[entry.slot].owner;
  Task task = std::exchange(slots_[entry.slot].task, nullptr);
  free_slots_.push_back(entry.slot);
  now_ = entry.time;
  ++events_;
  digest_ = mix(mix(digest_, static_cast<std::uint64_t>(now_.count())), index(owner.id_));
  owner.run_task(std::move(task));
  return true;
}

bool SimWorld::run_until(const std::function<bool()>& stop, Time until) {
  while (!stop()) {
    if (queue_.empty() || queue_.front().time > until) return false;
    step();
  }
  return true;
}

void SimWorld::run_for(Duration duration) {
  const Time until = now_ + duration;
  run_until([] { return false; }, until);
  now_ = until;
}

void SimWorld::kill(Member id) {
  for (std::size_t lane = 0; SimMember* const dead = find(id, lane); ++lane) dead->alive_ = false;
  for (const auto& [other, member] : members_) {
    if (other == id) continue;
    for (std::size_t lane = 0; SimMember* const peer = find(other, lane); ++lane) {
      if (!peer->links_.contains(id)) continue;
      schedule(now_ + options_.close_notice, *peer, [peer, id] {
        peer->link_down(id, Error{ErrorCode::kPeerLost, "the connection was closed by the other side"});
      });
    }
  }
}

void SimWorld::cut(Member a, Member b) { cuts_.insert(std::minmax(a, b)); }
void SimWorld::heal(Member a, Member b) { cuts_.erase(std::minmax(a, b)); }
double SimWorld::rate_of(Member member) const {
  if (options_.bytes_per_second_of.empty()) return options_.bytes_per_second;
  const auto found = options_.bytes_per_second_of.find(member);
  return found == options_.bytes_per_second_of.end() ? options_.bytes_per_second : found->second;
}

bool SimWorld::is_cut(Member a, Member b) const { return cuts_.contains(std::minmax(a, b)); }

void SimWorld::freeze(Member id) {
  for (std::size_t lane = 0; SimMember* const member = find(id, lane); ++lane) member->frozen_ = true;
}

void SimWorld::resume(Member id) {
  for (std::size_t lane = 0; SimMember* const member = find(id, lane); ++lane) {
    member->frozen_ = false;
    for (Task& task : std::exchange(member->kept_back_, {})) schedule(now_, *member, std::move(task));
  }
}

void SimMember::run_task(Task task) {
  if (!alive_) return;
  if (frozen_) {
    kept_back_.push_back(std::move(task));
    return;
  }
  task();
}

void SimMember::post(Task task) {
  world_.schedule(world_.now() + world_.jitter(world_.options_.task_jitter_max), *this, std::move(task));
}

TimerId SimMember::after(Duration delay, Task task) {
  const std::uint64_t id = next_timer_++;
  timers_.insert(id);
  world_.schedule(world_.now() + std::max(delay, Duration(1)), *this, [this, id, task = std::move(task)] {
    if (timers_.erase(id) != 0) task();
  });
  return TimerId{id};
}

void SimMember::cancel(TimerId timer) { timers_.erase(static_cast<std::uint64_t>(timer)); }

void SimMember::connect(Member peer, const std::vector<Endpoint>&, Duration deadline) {
  SimMember* const callee = world_.find(peer, lane_);
  if (callee == nullptr || !callee->alive_ || world_.is_cut(id_, peer)) {
    world_.schedule(world_.now() + deadline, *this, [this, peer] {
      if (listener_.on_down) listener_.on_down(peer, Error{ErrorCode::kTimeout, "nobody answered"});
    });
    return;
  }
  SimMember& other = *callee;
  const auto up = [](SimMember& member, Member with) {
    if (!member.links_.insert(with).second) return;
    if (member.listener_.on_up) member.listener_.on_up(with);
  };
  const Time then = world_.now() + 2 * world_.options_.latency;
  world_.schedule(then, other, [&other, self = id_, up] { up(other, self); });
  world_.schedule(then + world_.options_.latency, *this, [this, peer, up] { up(*this, peer); });
}

void SimMember::disconnect(Member peer) {
  if (links_.erase(peer) == 0) return;
  SimMember& other = *world_.find(peer, lane_);
  world_.schedule(std::max(world_.now(), home_->out_free_) + world_.options_.latency, other, [&other, self = id_] {
    other.link_down(self, Error{ErrorCode::kPeerLost, "the connection was closed by the other side"});
  });
}

void SimMember::link_down(Member peer, const Error& why) {
  if (links_.erase(peer) == 0) return;
  if (listener_.on_down) listener_.on_down(peer, why);
}

void SimMember::set_epoch(Epoch epoch) {
  epoch_ = epoch;
  for (auto& [from, frames] : std::exchange(paused_, {})) {
    for (const auto& frame : frames) arrive(from, frame);
  }
}

void SimMember::send(Destination to, Frame frame, SentFn on_sent) {
  auto arriving = std::make_shared<Arriving>();
  const bool fused = frame.parts.size() > 1;
  std::size_t payload_bytes = 0;
  for (const wire::PartHeader& part : frame.parts) payload_bytes += part.bytes;
  const std::size_t table = fused ? frame.parts.size() * wire::kPartBytes : 0;
  arriving->header.epoch = epoch_;
  arriving->header.sender = id_;
  arriving->header.credit = frame.credit;
  if (fused) {
    arriving->header.part.type = wire::FrameType::kFused;
  } else {
    arriving->header.part = frame.parts.front();
  }
  arriving->parts = std::move(frame.parts);
  const std::size_t wire_bytes = wire::kHeaderBytes + table + payload_bytes;
  const Duration on_link = seconds(static_cast<double>(wire_bytes) / world_.rate_of(id_));
  Time& out_free = home_->out_free_;
  out_free = std::max(out_free, world_.now()) + on_link;
  if (!links_.contains(to.peer)) {
    post([on_sent = std::move(on_sent)] {
      if (on_sent) on_sent();
    });
    return;
  }
  link_bytes_[to.peer].sent += wire_bytes;
  auto leave = [this, to, arriving, wire_bytes, on_link, payload_bytes, payload = std::move(frame.payload),
                      on_sent = std::move(on_sent)] {
    arriving->has_contents = std::all_of(payload.begin(), payload.end(), [](const Slice& s) { return s.data() != nullptr; });
    if (arriving->has_contents) {
      arriving->payload.resize(payload_bytes);
      gather(payload, arriving->payload.data());
    }
    if (on_sent) on_sent();
    if (world_.is_cut(id_, to.peer)) return;
    SimMember& other = *world_.find(to.peer, lane_);
    Time& in_free = other.home_->in_free_;
    const Time at_port = world_.now() + world_.options_.latency;
    const Duration on_their_link = seconds(static_cast<double>(wire_bytes) / world_.rate_of(to.peer));
    in_free = std::max(in_free, at_port - on_link) + on_their_link;
    // Control has one lane, and keeps its order.
    const bool shuffled = arriving->header.part.type != wire::FrameType::kControl;
    const Time arrival = std::max(in_free, at_port) + (shuffled ? world_.jitter(world_.options_.shuffle_delay_max) : Duration{0});
    world_.schedule(arrival, other, [&other, from = id_, arriving, wire_bytes] {
      if (!other.links_.contains(from)) return;
      other.link_bytes_[from].received += wire_bytes;
      other.arrive(from, arriving);
    });
  };
  world_.schedule(out_free, *this, std::move(leave));
}

void SimMember::set_body_handler(wire::FrameType type, BodyFn handle) { body_handlers_[type] = std::move(handle); }

LinkBytes SimMember::link_bytes(Member peer) const {
  const auto found = link_bytes_.find(peer);
  return found == link_bytes_.end() ? LinkBytes{} : found->second;
}

void SimMember::arrive(Member from, const std::shared_ptr<Arriving>& frame) {
  if (listener_.on_alive) listener_.on_alive(from);
  const bool is_data = wire::is_data(frame->header.part.type);
  if (is_data && frame->header.epoch > epoch_) {
    paused_[from].push_back(frame);
    return;
  }
  if (is_data && frame->header.epoch < epoch_) {
    if (on_receipt_) on_receipt_(from, frame->parts, frame->header.credit);
    return;
  }
  deliver(from, frame);
}

void SimMember::deliver(Member from, const std::shared_ptr<Arriving>& frame) {
  if (!wire::is_data(frame->header.part.type)) {
    if (on_receipt_) on_receipt_(from, {}, frame->header.credit);
    const auto handler = body_handlers_.find(frame->header.part.type);
    if (handler != body_handlers_.end()) handler->second(from, frame->header, frame->payload);
    return;
  }
  std::size_t at = 0;
  std::vector<Landing> landings;
  for (const wire::PartHeader& part : frame->parts) {
    Result<Landing> landing = sinks_.land(from, part);
    if (!landing) {
      protocol_errors_.push_back(landing.error());
      link_down(from, landing.error());
      return;
    }
    if (frame->has_contents) scatter(frame->payload.data() + at, landing->slices());
    at += part.bytes;
    landings.push_back(std::move(*landing));
  }
  if (on_receipt_) on_receipt_(from, frame->parts, frame->header.credit);
  for (const Landing& landing : landings) sinks_.landed(from, landing);
}

void SimCompute::finish_after(Duration cost, Task task) {
  free_ = std::max(free_, runtime_.now()) + cost;
  runtime_.after(free_ - runtime_.now(), std::move(task));
}

void SimCompute::sum(SumJob job, ComputeDoneFn done) {
  const double bytes = static_cast<double>(job.elements * bytes_of(job.dtype) * job.addends.size());
  finish_after(seconds(bytes / speeds_.sum_bytes_per_second), [this, job = std::move(job), done = std::move(done)] {
    if (speeds_.arithmetic) sum_now(job);
    done(std::nullopt);
  });
}

void SimCompute::product(ProductJob job, ComputeDoneFn done) {
  const double flops = 2.0 * static_cast<double>(job.rows) * static_cast<double>(job.m) * static_cast<double>(job.n);
  finish_after(seconds(flops / speeds_.flops_per_second), [this, job, done = std::move(done)] {
    if (speeds_.arithmetic) product_now(job);
    done(std::nullopt);
  });
}

}  // namespace poseidon::runtime::sim
