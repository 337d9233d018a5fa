// How one tensor, or one factor layer, goes through a host's shared memory: what is the same for both.
//
// A round is one iteration. Each member says where its part lies (kReady), and when all have, makes its share of the result and
// says so (kShareDone).
//   One host: shares are written into every member's memory, and with the last one the round is over.
//   Several: shares are written into the leader's memory. The leader's session sums over the network, and the leader says that the
//   result is there (kResult); each member copies it for itself, and says so (kTaken), since the leader may then use its memory
//   for the next gradient.
// A member begins iteration i+1 only after it has ended i, for which it needed all the others' parts of i; so at most two rounds
// are open. Frames may overtake each other.
//
// Lane only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/group.h"
#include "session/engine.h"

namespace poseidon::host {

struct ExchangeOptions {
  TensorId tensor{0};                  // for a factor layer its weight
  std::string name;                    // of the tensor or the layer, for messages
  std::uint32_t layer = 0;             // its place in the forward pass
  session::Engine* network = nullptr;  // of a leader of several hosts; outlives the exchange
  // Ends the job's waits, this one too, because of an error.
  std::function<void(const Error& error)> on_error;
};

class Exchange {
 public:
  Exchange(Group& group, ExchangeOptions options);
  virtual ~Exchange();

  // kCorruptFrame where the message cannot be meant.
  Status on_message(std::size_t from, const wire::HostMessage& message);

  bool waiting() const { return pending_.has_value(); }
  // Ends the wait with an error: the job is over. What is in the group's queue has been dropped.
  void fail(const Error& error);
  // Whom a wait of more than `age` is for.
  std::optional<std::string> overdue(runtime::Duration age) const;
  runtime::Duration waited() const { return pending_ ? group_.runtime().now() - pending_->since : runtime::Duration{0}; }

 protected:
  static constexpr std::size_t kPlacesMax = 3;
  // One member's part of a round.
  struct Part {
    bool ready = false;
    bool present = false;
    std::uint32_t samples = 0;
    std::array<std::shared_ptr<std::byte>, kPlacesMax> memory;  // as mapped here; what is not needed here is null
    bool share_done = false;
    bool taken = false;       // it has copied the result
  };
  struct Round {
    Iteration iteration = 0;
    std::vector<Part> parts;  // by place in the group
    bool combining = false;
    bool network_asked = false;
    std::optional<wire::HostMessage> result;
    bool fetching = false;
    bool fetched = false;
  };

  // For submit() of the classes below.
  void begin(Iteration iteration, bool present, std::uint32_t samples, SyncedFn on_synced);

  // What a member offers at each place, in bytes; 0 for what nobody needs.
  virtual std::array<std::size_t, kPlacesMax> offered(std::size_t place, bool present) const = 0;
  // Does this member read or write another one's memory at the place?
  virtual bool uses(std::size_t owner, std::size_t which) const = 0;
  // Brings this member's part into shared memory, notes it in `own`, and calls `then` with the places.
  virtual void prepare(Part& own, bool present, std::function<void(const std::array<wire::HostPlace, kPlacesMax>&)> then) = 0;
  virtual bool has_share(std::size_t place) const = 0;
  // Makes this member's share, then `then`. All parts are ready, and at least one is present.
  virtual void combine(const std::shared_ptr<Round>& round, std::function<void()> then) = 0;
  // At the leader of several hosts: hands over what the shares gave. `present`: whether this host has anything.
  virtual void to_network(const std::shared_ptr<Round>& round, bool present, SyncedFn on_synced) = 0;
  // Copies the result to where the caller wants it, then `then`.
  virtual void fetch(const std::shared_ptr<Round>& round, std::function<void()> then) = 0;
  // How many workers are in a result of so many members of this group, or of the network.
  virtual std::uint32_t contributors(std::uint32_t counted) const { return counted; }

  // Does nothing when the round is over by then, or this is gone.
  std::function<void()> guarded(const std::shared_ptr<Round>& round, std::function<void()> task);
  void error(const Error& why) { options_.on_error(why); }
  runtime::Priority priority(const Round& round) const { return {round.iteration, options_.layer, runtime::SendClass::kSum}; }
  // The member whose memory the result lies in, as far as this one is concerned.
  std::size_t result_place() const { return group_.alone() ? group_.self() : 0; }
  static std::uint32_t present_of(const Round& round);
  static std::uint32_t samples_of(const Round& round);

  Group& group_;
  ExchangeOptions options_;

 private:
  struct Pending {
    Iteration iteration = 0;
    SyncedFn on_synced;
    runtime::Time since{};
  };
  // What was mapped last of each member: gradients mostly stay where they are.
  struct Mapped {
    wire::HostPlace place;
    std::shared_ptr<std::byte> memory;
  };

  std::shared_ptr<Round> open(Iteration iteration);
  Status on_ready(Round& round, std::size_t from, const wire::HostMessage& message);
  void advance(const std::shared_ptr<Round>& round);
  void start_share(const std::shared_ptr<Round>& round);
  bool all_ready(const Round& round) const;
  bool all_shares_done(const Round& round) const;
  bool all_others_took(const Round& round) const;
  void tell_share_done(const Round& round);
  void ask_network(const std::shared_ptr<Round>& round);
  void on_network(const std::shared_ptr<Round>& round, const Synced& synced);
  void take_result(const std::shared_ptr<Round>& round);
  void finish(const std::shared_ptr<Round>& round);
  wire::HostMessage message_of(const Round& round, wire::HostMessageKind kind) const;

  std::optional<Pending> pending_;
  std::map<Iteration, std::shared_ptr<Round>> rounds_;
  std::optional<Iteration> last_finished_;
  std::vector<std::array<Mapped, kPlacesMax>> mapped_;  // by place in the group
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::host
