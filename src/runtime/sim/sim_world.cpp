#include "runtime/sim/sim_world.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::runtime::sim {
namespace {

constexpr std::uint32_t kSmallIds = 1 << 16;

Duration seconds(double value) { return Duration(static_cast<std::int64_t>(std::ceil(value * 1e9))); }

std::uint64_t mix(std::uint64_t digest, std::uint64_t value) {
  digest = (digest ^ value) * 0x100000001B3u;
  return digest ^ (digest >> 31);
}

}  // namespace

SimWorld::SimWorld(SimOptions options) : options_(options), random_(options.seed) {}
SimWorld::~SimWorld() = default;

SimMember& SimWorld::add(Member id) {
  auto [entry, is_new] = members_.emplace(id, nullptr);
  POSEIDON_CHECK(is_new, "member ", index(id), " was added twice");
  entry->second = std::make_unique<SimMember>(*this, id, static_cast<std::uint32_t>(numbered_.size()));
  if (index(id) < kSmallIds) {
    by_id_.resize(std::max<std::size_t>(by_id_.size(), index(id) + 1), nullptr);
    by_id_[index(id)] = entry->second.get();
  }
  numbered_.push_back(entry->second.get());
  return *entry->second;
}

SimMember& SimWorld::at(Member id) {
  if (index(id) < by_id_.size() && by_id_[index(id)] != nullptr) return *by_id_[index(id)];
  return *members_.at(id);
}

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

void SimWorld::push(const Entry& entry) {
  queue_.push_back(entry);
  std::push_heap(queue_.begin(), queue_.end(), Later());
}

std::uint32_t SimWorld::take_slot(SimMember& owner, Task task, Flight* flight) {
  if (free_slots_.empty()) {
    slots_.push_back({&owner, std::move(task), flight});
    return static_cast<std::uint32_t>(slots_.size() - 1);
  }
  const std::uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot] = {&owner, std::move(task), flight};
  return slot;
}

void SimWorld::schedule(Time time, SimMember& owner, Task task) {
  push({std::max(time, now_), now_, next_order_++, take_slot(owner, std::move(task), nullptr), Kind::kTask});
}

void SimWorld::push_first(const FlightQueue& queue, const SimMember& member, Kind kind) {
  if (queue.empty()) return;
  const Flight& flight = *queue.first();
  push({flight.time, flight.left, flight.order, member.number_, kind});
}

void SimWorld::push_first(const std::deque<Due>& queue, const SimMember& member) {
  if (!queue.empty()) push({queue.front().flight->left, queue.front().cause, queue.front().flight->order, member.number_, Kind::kDeparture});
}

void SimWorld::schedule_departure(Flight* flight) {
  SimMember& home = *flight->from->home_;
  home.departures_.push_back({now_, flight});
  if (home.departures_.size() == 1) push_first(home.departures_, home);
}

void SimWorld::schedule_port(Flight* flight) {
  SimMember& home = *flight->from->home_;
  flight->time = flight->left + options_.latency;
  const bool is_first = home.ports_.empty();
  home.ports_.push(flight);
  if (is_first) push_first(home.ports_, home, Kind::kPort);
}

void SimWorld::schedule_arrival(Time time, Flight* flight) {
  SimMember& home = *flight->to->home_;
  // Control has one lane, and keeps its order.
  if (options_.shuffle_delay_max.count() > 0 && flight->parts.front().type != wire::FrameType::kControl) {
    return push({time + jitter(options_.shuffle_delay_max), now_, next_order_++, take_slot(*flight->to, nullptr, flight), Kind::kStray});
  }
  const bool is_first = home.arrivals_.empty();
  // Nothing is before it: most links are not busy at most times.
  if (is_first && time == now_) return flight->to->run_arrival(flight);
  flight->time = time;
  home.arrivals_.push(flight);
  if (is_first) push_first(home.arrivals_, home, Kind::kArrival);
}

bool SimWorld::step() {
  if (queue_.empty()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), Later());
  const Entry entry = queue_.back();
  queue_.pop_back();
  now_ = entry.time;
  if (entry.kind == Kind::kTask || entry.kind == Kind::kStray) {
    run_slot(entry.index);
    return true;
  }
  SimMember& home = *numbered_[entry.index];
  count(home);
  if (entry.kind == Kind::kDeparture) {
    Flight* const flight = home.departures_.front().flight;
    home.departures_.pop_front();
    push_first(home.departures_, home);
    flight->from->run_departure(flight);
    return true;
  }
  FlightQueue& queue = entry.kind == Kind::kPort ? home.ports_ : home.arrivals_;
  Flight* const flight = queue.pop();
  push_first(queue, home, entry.kind);
  entry.kind == Kind::kPort ? flight->from->reach_port(flight) : flight->to->run_arrival(flight);
  return true;
}

void SimWorld::run_slot(std::uint32_t index) {
  // Out of its slot first: it may schedule others.
  SimMember& owner = *slots_[index].owner;
  Task task = std::exchange(slots_[index].task, nullptr);
  Flight* const flight = slots_[index].flight;
  free_slots_.push_back(index);
  count(owner);
  flight != nullptr ? owner.run_arrival(flight) : owner.run_task(std::move(task));
}

void SimWorld::count(const SimMember& owner) {
  ++events_;
  digest_ = mix(mix(digest_, static_cast<std::uint64_t>(now_.count())), index(owner.id_));
}

Flight* SimWorld::take_flight() {
  if (free_flights_.empty()) return &flights_.emplace_back();
  Flight* const flight = free_flights_.back();
  free_flights_.pop_back();
  return flight;
}

void SimWorld::give_back(Flight* flight) {
  flight->parts.clear();
  flight->cargo.reset();
  flight->lost = false;
  free_flights_.push_back(flight);
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
      if (!peer->is_up(at(id))) continue;
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

void SimMember::run_departure(Flight* flight) {
  if (!alive_) {
    flight->lost = true;
  } else if (frozen_) {
    kept_back_.push_back([this, flight] { run_departure(flight); });
  } else {
    leave(flight);
  }
}

void SimMember::run_arrival(Flight* flight) {
  if (!alive_) return world_.give_back(flight);
  if (frozen_) {
    kept_back_.push_back([this, flight] { run_arrival(flight); });
    return;
  }
  reach(flight);
}

SimMember::Link& SimMember::link(const SimMember& peer) {
  if (links_.size() <= peer.number_) links_.resize(world_.numbered_.size());
  return links_[peer.number_];
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
    Link& link = member.link(member.world_.at(with));
    if (std::exchange(link.up, true)) return;
    if (member.listener_.on_up) member.listener_.on_up(with);
  };
  const Time then = world_.now() + 2 * world_.options_.latency;
  world_.schedule(then, other, [&other, self = id_, up] { up(other, self); });
  world_.schedule(then + world_.options_.latency, *this, [this, peer, up] { up(*this, peer); });
}

void SimMember::disconnect(Member peer) {
  if (!std::exchange(link(world_.at(peer)).up, false)) return;
  SimMember& other = *world_.find(peer, lane_);
  world_.schedule(std::max(world_.now(), home_->out_free_) + world_.options_.latency, other, [&other, self = id_] {
    other.link_down(self, Error{ErrorCode::kPeerLost, "the connection was closed by the other side"});
  });
}

void SimMember::link_down(Member peer, const Error& why) {
  if (!std::exchange(link(world_.at(peer)).up, false)) return;
  if (listener_.on_down) listener_.on_down(peer, why);
}

void SimMember::set_epoch(Epoch epoch) {
  epoch_ = epoch;
  for (auto& [from, flights] : std::exchange(paused_, {})) {
    for (Flight* const flight : flights) arrive(flight);
  }
}

void SimMember::send(Destination to, Frame frame, SentFn on_sent) {
  const bool fused = frame.parts.size() > 1;
  std::size_t payload_bytes = 0;
  for (const wire::PartHeader& part : frame.parts) payload_bytes += part.bytes;
  const std::size_t table = fused ? frame.parts.size() * wire::kPartBytes : 0;
  const std::size_t wire_bytes = wire::kHeaderBytes + table + payload_bytes;
  const Duration on_link = seconds(static_cast<double>(wire_bytes) / world_.rate_of(id_));
  Time& out_free = home_->out_free_;
  out_free = std::max(out_free, world_.now()) + on_link;
  if (!is_up(world_.at(to.peer))) {
    post([on_sent = std::move(on_sent)] {
      if (on_sent) on_sent();
    });
    return;
  }
  SimMember& other = *world_.find(to.peer, lane_);
  Link& to_other = link(other);
  to_other.bytes.sent += wire_bytes;
  Flight* const flight = world_.take_flight();
  flight->from = this;
  flight->to = &other;
  flight->epoch = epoch_;
  flight->credit = frame.credit;
  flight->parts = std::move(frame.parts);
  flight->wire_bytes = wire_bytes;
  flight->on_link = on_link;
  flight->left = out_free;
  flight->order = world_.next_order_++;
  if (!frame.payload.empty() || on_sent) {
    flight->cargo = std::make_unique<Cargo>(Cargo{std::move(frame.payload), {}, std::move(on_sent)});
  }
  if (world_.options_.interleave) {
    if (!to_other.connection) to_other.connection = home_->connections_++;
    home_->interleaved_.push(world_.now(), *to_other.connection, flight, wire_bytes, world_.rate_of(id_));
    return home_->schedule_interleaved();
  }
  if (flight->cargo) world_.schedule_departure(flight);
  world_.schedule_port(flight);
}

void SimMember::schedule_interleaved() {
  const std::optional<Time> next = interleaved_.next();
  if (!next) return;
  world_.schedule(*next, *this, [this, turn = ++interleaved_turn_] {
    if (turn == interleaved_turn_) depart_interleaved();
  });
}

void SimMember::depart_interleaved() {
  const FairLink<Flight*>::Departure departure = interleaved_.pop();
  Flight* const flight = departure.frame;
  flight->left = world_.now();
  flight->on_link = world_.now() - departure.began;
  schedule_interleaved();
  world_.schedule_port(flight);
  if (flight->cargo) flight->from->run_departure(flight);
}

void SimMember::leave(Flight* flight) {
  Cargo& cargo = *flight->cargo;
  cargo.left = true;
  if (!cargo.payload.empty()) {
    std::size_t bytes = 0;
    for (const Slice& slice : cargo.payload) bytes += slice.bytes;
    cargo.contents.resize(bytes);
    gather(cargo.payload, cargo.contents.data());
  }
  flight->lost = world_.is_cut(id_, flight->to->id_);
  // It has been frozen for so long that its time at the other side has passed.
  if (cargo.delayed) world_.schedule(world_.now() + world_.options_.latency, *this, [this, flight] { reach_port(flight); });
  if (const SentFn on_sent = std::exchange(cargo.on_sent, nullptr)) on_sent();
}

void SimMember::reach_port(Flight* flight) {
  if (flight->cargo == nullptr) {
    flight->lost = !alive_ || world_.is_cut(id_, flight->to->id_);
  } else if (!flight->cargo->left && !flight->lost) {
    flight->cargo->delayed = true;
    return;
  }
  if (flight->lost) return world_.give_back(flight);
  home_->all_bytes_.sent += flight->wire_bytes;
  SimMember& other = *flight->to;
  Time& in_free = other.home_->in_free_;
  const Time at_port = world_.now();
  const Duration on_their_link = seconds(static_cast<double>(flight->wire_bytes) / world_.rate_of(other.id_));
  in_free = std::max(in_free, at_port - flight->on_link) + on_their_link;
  world_.schedule_arrival(std::max(in_free, at_port), flight);
}

void SimMember::reach(Flight* flight) {
  Link& from = link(*flight->from);
  if (!from.up) return world_.give_back(flight);
  from.bytes.received += flight->wire_bytes;
  home_->all_bytes_.received += flight->wire_bytes;
  arrive(flight);
}

void SimMember::set_body_handler(wire::FrameType type, BodyFn handle) { body_handlers_[type] = std::move(handle); }

LinkBytes SimMember::link_bytes(Member peer) const {
  const std::uint32_t number = world_.at(peer).number_;
  return number < links_.size() ? links_[number].bytes : LinkBytes{};
}

void SimMember::arrive(Flight* flight) {
  const Member from = flight->from->id_;
  if (listener_.on_alive) listener_.on_alive(from);
  const bool is_data = wire::is_data(flight->parts.front().type);
  if (is_data && flight->epoch > epoch_) {
    paused_[from].push_back(flight);
    return;
  }
  if (is_data && flight->epoch < epoch_) {
    if (on_receipt_) on_receipt_(from, flight->parts, flight->credit);
  } else {
    deliver(*flight);
  }
  world_.give_back(flight);
}

void SimMember::deliver(Flight& flight) {
  const Member from = flight.from->id_;
  const std::span<const std::byte> contents = flight.cargo ? flight.cargo->contents : std::span<const std::byte>();
  const wire::PartHeader& first = flight.parts.front();
  if (!wire::is_data(first.type)) {
    if (on_receipt_) on_receipt_(from, {}, flight.credit);
    const auto handler = body_handlers_.find(first.type);
    if (handler == body_handlers_.end()) return;
    wire::FrameHeader header;
    header.epoch = flight.epoch;
    header.sender = from;
    header.part = first;
    header.credit = flight.credit;
    handler->second(from, header, {contents.begin(), contents.end()});
    return;
  }
  std::size_t at = 0;
  // Taken, since what is told of one frame may let another be delivered.
  std::vector<Landing> landings = std::exchange(landings_, {});
  landings.clear();
  for (const wire::PartHeader& part : flight.parts) {
    Result<Landing> landing = sinks_.land(from, part);
    if (!landing) {
      protocol_errors_.push_back(landing.error());
      link_down(from, landing.error());
      return;
    }
    if (!contents.empty()) scatter(contents.data() + at, landing->slices());
    at += part.bytes;
    landings.push_back(std::move(*landing));
  }
  if (on_receipt_) on_receipt_(from, flight.parts, flight.credit);
  for (const Landing& landing : landings) sinks_.landed(from, landing);
  landings_ = std::move(landings);
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
