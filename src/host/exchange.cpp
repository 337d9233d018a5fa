#include "host/exchange.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::host {

using wire::HostMessage;
using wire::HostMessageKind;

namespace {

// This member's own iteration, and the next one of those who have ended it sooner.
constexpr std::size_t kOpenRoundsMax = 2;

}  // namespace

Exchange::Exchange(Group& group, ExchangeOptions options)
    : group_(group), options_(std::move(options)), mapped_(group.size()) {}

Exchange::~Exchange() { *alive_ = false; }

std::uint32_t Exchange::present_of(const Round& round) {
  return static_cast<std::uint32_t>(std::count_if(round.parts.begin(), round.parts.end(), [](const Part& p) { return p.present; }));
}

std::uint32_t Exchange::samples_of(const Round& round) {
  std::uint32_t samples = 0;
  for (const Part& part : round.parts) samples += part.samples;
  return samples;
}

std::function<void()> Exchange::guarded(const std::shared_ptr<Round>& round, std::function<void()> task) {
  return [this, alive = alive_, round, task = std::move(task)] {
    if (*alive && rounds_.contains(round->iteration)) task();
  };
}

HostMessage Exchange::message_of(const Round& round, HostMessageKind kind) const {
  HostMessage message;
  message.kind = kind;
  message.tensor = options_.tensor;
  message.iteration = round.iteration;
  return message;
}

std::shared_ptr<Exchange::Round> Exchange::open(Iteration iteration) {
  if (const auto found = rounds_.find(iteration); found != rounds_.end()) return found->second;
  if (rounds_.size() >= kOpenRoundsMax || (last_finished_ && iteration <= *last_finished_)) return nullptr;
  auto round = std::make_shared<Round>();
  round->iteration = iteration;
  round->parts.resize(group_.size());
  rounds_[iteration] = round;
  return round;
}

void Exchange::begin(Iteration iteration, bool present, std::uint32_t samples, SyncedFn on_synced) {
  POSEIDON_CHECK(!pending_, options_.name, ": a gradient of iteration ", iteration, " while ", pending_->iteration,
                 " is not synchronised yet");
  const std::shared_ptr<Round> round = open(iteration);
  POSEIDON_CHECK(round != nullptr, options_.name, ": iteration ", iteration, " is over, or too far ahead");
  pending_ = Pending{iteration, std::move(on_synced), group_.runtime().now()};
  prepare(round->parts[group_.self()], present,
          [this, alive = alive_, round, present, samples](const std::array<wire::HostPlace, kPlacesMax>& places) {
            if (!*alive || !rounds_.contains(round->iteration)) return;
            Part& own = round->parts[group_.self()];
            own.ready = true;
            own.present = present;
            own.samples = samples;
            HostMessage message = message_of(*round, HostMessageKind::kReady);
            message.absent = !present;
            message.samples = samples;
            message.places = places;
            group_.send_to_others(message);
            advance(round);
          });
}

Status Exchange::on_message(std::size_t from, const HostMessage& message) {
  const auto corrupt = [&](const char* why) {
    return Error{ErrorCode::kCorruptFrame, base::concat("rank ", index(group_.rank(from)), " of this host sent a message of kind ",
                                                        static_cast<int>(message.kind), " about ", options_.name, ", iteration ",
                                                        message.iteration, ": ", why)};
  };
  const std::shared_ptr<Round> round = open(message.iteration);
  if (!round) return corrupt("its turn is over, or has not come");
  Part& part = round->parts[from];
  switch (message.kind) {
    case HostMessageKind::kReady:
      if (part.ready) return corrupt("it came twice");
      if (const Status status = on_ready(*round, from, message); !status) return status;
      break;
    case HostMessageKind::kShareDone:
      if (part.share_done || !has_share(from)) return corrupt("it has no share to do, or has done it");
      part.share_done = true;
      break;
    case HostMessageKind::kResult:
      if (from != 0 || group_.alone() || round->result) return corrupt("a result comes once, from the leader of a host among others");
      round->result = message;
      break;
    case HostMessageKind::kTaken:
      if (!group_.leads() || !round->result || part.taken) return corrupt("there is nothing to take");
      part.taken = true;
      break;
    case HostMessageKind::kValue:
    case HostMessageKind::kValueTaken:
      return corrupt("it is about no gradient");
  }
  advance(round);
  return {};
}

Status Exchange::on_ready(Round& round, std::size_t from, const HostMessage& message) {
  Part& part = round.parts[from];
  const std::array<std::size_t, kPlacesMax> bytes = offered(from, !message.absent);
  for (std::size_t which = 0; which < kPlacesMax; ++which) {
    const wire::HostPlace& place = message.places[which];
    if (place.bytes != bytes[which]) {
      return Error{ErrorCode::kCorruptFrame, base::concat("rank ", index(group_.rank(from)), " of this host offers ", place.bytes,
                                                          " bytes of shared memory for ", options_.name, ", it must be ", bytes[which])};
    }
  }
  for (std::size_t which = 0; which < kPlacesMax; ++which) {
    const wire::HostPlace& place = message.places[which];
    if (place.bytes == 0 || !uses(from, which)) continue;
    Mapped& last = mapped_[from][which];
    if (!last.memory || last.place != place) {
      Result<std::shared_ptr<std::byte>> memory = group_.map(from, place);
      if (!memory) return memory.error();
      last = {place, std::move(*memory)};
    }
    part.memory[which] = last.memory;
  }
  part.ready = true;
  part.present = !message.absent;
  part.samples = message.samples;
  return {};
}

bool Exchange::all_ready(const Round& round) const {
  return std::all_of(round.parts.begin(), round.parts.end(), [](const Part& p) { return p.ready; });
}

bool Exchange::all_shares_done(const Round& round) const {
  if (present_of(round) == 0) return true;
  for (std::size_t place = 0; place < round.parts.size(); ++place) {
    if (has_share(place) && !round.parts[place].share_done) return false;
  }
  return true;
}

bool Exchange::all_others_took(const Round& round) const {
  return std::all_of(round.parts.begin() + 1, round.parts.end(), [](const Part& p) { return p.taken; });
}

// Whatever has happened: does what can be done now.
void Exchange::advance(const std::shared_ptr<Round>& round) {
  if (!all_ready(*round)) return;
  if (!round->combining) return start_share(round);
  const Part& own = round->parts[group_.self()];
  if (has_share(group_.self()) && present_of(*round) > 0 && !own.share_done) return;
  if (group_.alone()) {
    if (all_shares_done(*round)) take_result(round);
  } else if (group_.leads()) {
    if (all_shares_done(*round)) ask_network(round);
    if (round->fetched && all_others_took(*round)) finish(round);
  } else if (round->result) {
    take_result(round);
  }
}

void Exchange::start_share(const std::shared_ptr<Round>& round) {
  round->combining = true;
  if (present_of(*round) == 0 || !has_share(group_.self())) return advance(round);
  combine(round, guarded(round, [this, round] {
            round->parts[group_.self()].share_done = true;
            tell_share_done(*round);
            advance(round);
          }));
}

void Exchange::tell_share_done(const Round& round) {
  const HostMessage message = message_of(round, HostMessageKind::kShareDone);
  if (group_.alone()) {
    group_.send_to_others(message);
  } else if (!group_.leads()) {
    group_.send(0, message);
  }
}

void Exchange::ask_network(const std::shared_ptr<Round>& round) {
  if (round->network_asked) return;
  round->network_asked = true;
  // The session calls back on its own lane, which may be another one.
  to_network(round, present_of(*round) > 0, [this, alive = alive_, round, &runtime = group_.runtime()](const Synced& synced) {
    runtime.post([this, alive, round, synced] {
      if (*alive && rounds_.contains(round->iteration)) on_network(round, synced);
    });
  });
}

void Exchange::on_network(const std::shared_ptr<Round>& round, const Synced& synced) {
  if (synced.error) return error(*synced.error);
  HostMessage message = message_of(*round, HostMessageKind::kResult);
  message.contributors = contributors(synced.contributors);
  message.samples = static_cast<std::uint32_t>(synced.samples);
  round->result = message;
  group_.send_to_others(message);
  take_result(round);
}

void Exchange::take_result(const std::shared_ptr<Round>& round) {
  if (round->fetching) return;
  round->fetching = true;
  if (group_.alone()) {
    HostMessage result = message_of(*round, HostMessageKind::kResult);
    const std::uint32_t counted = present_of(*round);
    result.contributors = counted == 0 ? 0 : contributors(counted);
    result.samples = samples_of(*round);
    round->result = result;
  }
  const auto then = guarded(round, [this, round] {
    round->fetched = true;
    if (group_.alone()) return finish(round);
    if (group_.leads()) return advance(round);
    group_.send(0, message_of(*round, HostMessageKind::kTaken));
    finish(round);
  });
  if (round->result->contributors == 0) return then();
  fetch(round, then);
}

void Exchange::finish(const std::shared_ptr<Round>& round) {
  last_finished_ = round->iteration;
  rounds_.erase(round->iteration);
  const Pending done = std::move(*pending_);
  pending_.reset();
  done.on_synced({.error = std::nullopt,
                  .iteration = done.iteration,
                  .contributors = round->result->contributors,
                  .samples = round->result->samples,
                  .ready = {}});
}

void Exchange::fail(const Error& error) {
  rounds_.clear();
  if (!pending_) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
  done.on_synced({.error = error, .iteration = done.iteration, .contributors = 0, .samples = 0, .ready = {}});
}

std::optional<std::string> Exchange::overdue(runtime::Duration age) const {
  if (!pending_ || waited() < age) return std::nullopt;
  const Round& round = *rounds_.at(pending_->iteration);
  std::vector<std::string> missing;
  const auto collect = [&](auto lacks) {
    for (std::size_t place = 0; place < round.parts.size(); ++place) {
      if (place != group_.self() && lacks(place)) missing.push_back(base::concat("rank ", index(group_.rank(place))));
    }
  };
  std::string what = "to hand in its part of ";
  collect([&](std::size_t place) { return !round.parts[place].ready; });
  if (missing.empty() && (group_.alone() || group_.leads())) {
    what = "to make its share of ";
    collect([&](std::size_t place) { return has_share(place) && !round.parts[place].share_done; });
  }
  if (missing.empty() && group_.leads() && !group_.alone() && round.result) {
    what = "to take the sum of ";
    collect([&](std::size_t place) { return !round.parts[place].taken; });
  }
  // The network's session says itself whom it waits for.
  if (missing.empty() && round.network_asked && !round.result) return std::nullopt;
  if (missing.empty() && !group_.alone() && !group_.leads()) {
    what = "to bring the sum over the hosts of ";
    missing.push_back(base::concat("rank ", index(group_.rank(0))));
  }
  if (missing.empty()) missing.push_back("its own lane");
  return base::concat("rank ", index(group_.rank(group_.self())), " waits for ", base::join_words(missing), " ", what, options_.name,
                      ", iteration ", pending_->iteration, ", since ",
                      base::readable_seconds(std::chrono::duration<double>(waited()).count()));
}

}  // namespace poseidon::host
