// What members and the coordinator say to each other: the bodies of control frames, as JSON.
//
// Control messages are few and small, so they are written to be read by people with a packet dump. They come from members that
// have proved the job's secret, and are checked all the same: decode() bounds what it accepts, and never throws.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "plan/cost_model.h"
#include "poseidon/error.h"
#include "poseidon/types.h"
#include "runtime/transport.h"

namespace poseidon::cluster {

// Who a member is, for people and for those who want to connect.
struct MemberInfo {
  Member member{0};
  Rank rank{0};
  std::string host;
  std::int64_t pid = 0;
  std::vector<runtime::Endpoint> endpoints;
  std::string machine = "";  // equal where two members can share memory; empty: with nobody
  std::string memory = "";   // where this member's shared memory is found from there (runtime::real::HostMemory::address)
  // "rank 2 (pid 4711 on node-b)"
  std::string text() const;
};

// From a worker.
struct Join {
  MemberInfo self;
  Model model;
  std::string arithmetic;  // digest of a probe product: equal where the arithmetic is
};
struct Linked {};  // links to all other workers are up
struct Speeds {
  plan::Speeds speeds;
};
struct Ready {};   // the plan is installed: data may come
struct Note {      // for the application that runs the coordinator
  std::string body;
};
struct Gather {    // this worker's part of the gathering with that number
  std::uint64_t number = 0;
  std::string body;
};
struct Paused {    // answer to Pause: begins no iteration after this one until it is told how far all go
  Iteration limit = 0;
};
struct Leave {};   // has done all its work
struct Failed {    // cannot go on
  ErrorCode code = ErrorCode::kSystem;
  std::string message;
};
struct PeerLost {  // the link to another worker broke
  Rank peer{0};
  std::string why;
};

// From the coordinator.
struct OpenEpoch {
  Epoch epoch{0};
  std::vector<MemberInfo> members;  // by rank
};
struct Measure {};
struct UsePlan {
  std::string plan;               // plan::to_json
  std::uint64_t window_bytes = 0;
};
struct Start {};
struct Gathered {  // all workers' parts, by rank
  std::uint64_t number = 0;
  std::vector<std::string> bodies;
};
struct Pause {};
struct StopAfter {  // the last iteration that anyone may run
  Iteration iteration = 0;
};
struct Goodbye {};  // everybody has left
struct Abort {
  ErrorCode code = ErrorCode::kAborted;
  std::string message;
};

// Both ways.
struct Alive {};

using Message = std::variant<Join, Linked, Speeds, Ready, Note, Gather, Paused, Leave, Failed, PeerLost, OpenEpoch, Measure, UsePlan,
                             Start, Gathered, Pause, StopAfter, Goodbye, Abort, Alive>;

std::string encode(const Message& message);
// kCorruptFrame with the reason where the bytes are no message.
Result<Message> decode(std::span<const std::byte> body);

// Sends a message to a peer; the transport's link must be up.
void send(runtime::Transport& transport, Member to, const Message& message);

}  // namespace poseidon::cluster
