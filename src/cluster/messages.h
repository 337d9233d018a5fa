// What members and the coordinator say to each other: the bodies of control frames, as JSON.
//
// Control messages are few and small, so they are written to be read by people with a packet dump. They come from members that
// have proved the job's secret, and are checked all the same: decode() bounds what it accepts, and never throws.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "plan/cost_model.h"
#include "plan/profile.h"
#include "poseidon/error.h"
#include "poseidon/types.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

// Who a member is, for people and for those who want to connect.
struct MemberInfo {
  Member member{0};
  Rank rank{0};               // its number among the nodes: the workers' ranks, then the dedicated servers
  std::string host;
  std::int64_t pid = 0;
  std::vector<runtime::Endpoint> endpoints;  // of all its lanes
  std::uint32_t lanes = 1;                   // event loops, each with a link of its own to the same lane of every other member
  // A dedicated server's number, from 0; a worker has none.
  std::optional<std::uint32_t> server;
  std::string machine = "";  // equal where two workers can share memory; empty: with nobody
  std::string memory = "";   // where this worker's shared memory is found from there (runtime::real::HostMemory::address)
  // "rank 2 (pid 4711 on node-b)", "server 0 (pid 4712 on node-c)"
  std::string text() const;
};

// From a worker or a dedicated server. What only workers send says so.
struct Join {
  MemberInfo self;
  Model model;             // a dedicated server has none yet
  std::string arithmetic;  // digest of a probe product: equal where the arithmetic is
  Iteration first = 0;     // the iteration that it will begin with
  bool replans = false;    // it can go over to another plan between two iterations
  bool provisional = false;  // it trains this model only until it knows a better one, and says so then (Renew)
};
struct Linked {};  // links to all other members are up
struct Speeds {
  plan::Speeds speeds;
};
struct Ready {};   // the plan is installed: data may come
struct Profiled {  // from workers: what its iterations are like
  plan::Profile profile;
};
struct Settled {};  // from workers: waits to begin the iteration that a plan ends before, and has all sums of those before
struct Renew {     // from workers: trains another model from that iteration on, and has all sums of those before
  Model model;
  Iteration first = 0;
  std::vector<TensorId> values;  // of these, rank 0's values are written into all others'
};
struct Note {      // from workers, for the application that runs the coordinator
  std::string body;
};
struct Gather {    // from workers: this one's part of the gathering with that number
  std::uint64_t number = 0;
  std::string body;
};
struct Paused {    // from workers, answer to the Pause of that number: begins no iteration after this one until it is told how far
                   // all go
  std::uint64_t number = 0;
  Iteration limit = 0;
};
struct Leave {     // from workers: has done all its work
  Iteration next = 0;  // the first iteration that it has not begun
};
struct Failed {    // cannot go on
  ErrorCode code = ErrorCode::kSystem;
  std::string message;
};
struct PeerLost {  // the link to another member broke
  Rank peer{0};
  std::string why;
};

// From the coordinator.
struct OpenEpoch {
  Epoch epoch{0};
  std::vector<MemberInfo> members;  // by rank, the dedicated servers after the workers
};
struct Measure {            // the link to the member that many places further in OpenEpoch::members
  std::uint32_t shift = 1;
  bool arithmetic = false;  // the arithmetic as well, first
};
struct UsePlan {
  std::string plan;                // plan::to_json
  std::uint64_t window_bytes = 0;
  std::optional<Iteration> until;  // the iteration before which it ends; nothing: none is known yet
  bool watch = false;              // tell now and then what the iterations are like (Profiled)
  std::optional<Model> model;      // for dedicated servers, which are told what the workers train
};
struct Start {};  // data may be sent; a worker that waits for its next plan goes on
struct Gathered {  // to workers: the parts of all, by rank
  std::uint64_t number = 0;
  std::vector<std::string> bodies;
};
struct Pause {     // to workers
  std::uint64_t number = 0;
};
struct HoldBefore {  // to workers: the plan in force ends before this iteration, which begins with the Start of the next
  Iteration iteration = 0;
};
struct GoOn {};     // to workers: there will be no other plan now; the pause, or the hold, is over
struct StopAfter {  // to workers: the last iteration that anyone may run
  Iteration iteration = 0;
};
struct Left {       // to workers: one has left, whom no other iterations may need
  std::string who;
  Iteration next = 0;  // the first that it has not begun
};
struct Goodbye {};  // every worker has left
struct Abort {
  ErrorCode code = ErrorCode::kAborted;
  std::string message;
};

// Both ways.
struct Alive {};

using Message = std::variant<Join, Linked, Speeds, Ready, Profiled, Settled, Renew, Note, Gather, Paused, Leave, Failed, PeerLost, OpenEpoch,
                             Measure, UsePlan, Start, Gathered, Pause, HoldBefore, GoOn, StopAfter, Left, Goodbye, Abort,
                             Alive>;

std::string encode(const Message& message);
// kCorruptFrame with the reason where the bytes are no message.
Result<Message> decode(std::span<const std::byte> body);

// Sends a message to a peer; the transport's link must be up.
void send(runtime::Transport& transport, Member to, const Message& message);

}  // namespace poseidon::cluster
