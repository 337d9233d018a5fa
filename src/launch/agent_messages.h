// What a launcher and its agents (launch/agent.h) say to each other, over an agent's standard input and output.
//
// A message is a line "KIND LENGTH\n" and so many bytes of body. In front of an agent's first message stands a line of its own,
// kGreeting: what comes before it was written by others, such as a login shell's greetings. Everything is checked: bodies come from
// other machines. Pure functions, and a reader without a descriptor.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/child_process.h"
#include "poseidon/error.h"

namespace poseidon::launch {

constexpr std::string_view kGreeting = "poseidon-agent 1\n";
constexpr std::size_t kMessageBytesMax = std::size_t{16} << 20;

enum class Speech {
  // From the launcher.
  kStart,   // AgentStart
  kSignal,  // a number: each process gets this signal, but not its children
  kKill,    // nothing: end everything now
  // From an agent.
  kHello,    // AgentHello
  kStarted,  // AgentStarted
  kRefused,  // why nothing has been started: an error's code, a line's end, its message
  kOutput,   // NodeOutput
  kExit,     // NodeExit
};

struct AgentMessage {
  Speech kind = Speech::kKill;
  std::string body;
};

std::string to_bytes(const AgentMessage& message);

// Takes bytes as they come, in whatever pieces.
class AgentMessageReader {
 public:
  // `greeted`: messages come at once; otherwise after kGreeting.
  explicit AgentMessageReader(bool greeted) : greeted_(greeted) {}
  void feed(std::string_view bytes) { bytes_.append(bytes); }
  // The next whole message; nothing: more bytes are needed. kCorruptFrame where they are none: nothing can be read from then on.
  Result<std::optional<AgentMessage>> next();
  bool has_been_greeted() const { return greeted_; }
  // What came before the greeting, its last 4096 bytes.
  std::string_view noise() const { return noise_; }

 private:
  bool take_greeting();

  bool greeted_;
  std::string bytes_;  // not understood yet
  std::string noise_;
};

struct Address {
  std::string host;
  int port = 0;
  friend bool operator==(const Address&, const Address&) = default;
};

struct AgentHello {
  std::string version;  // of poseidon there
  std::string host;     // what that machine calls itself
  int cores = 0;
  std::int64_t pid = 0;
  int free_port = 0;    // one that nobody listened on a moment ago
};

// One process of the job.
struct NodeStart {
  int number = 0;  // a rank, or after the workers a dedicated server
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;
};

struct AgentStart {
  std::string secret;                 // of the job, as hexadecimal digits
  std::vector<Address> coordinators;  // where the coordinator may be reached, best first
  std::string folder;                 // in which the processes start
  std::map<std::string, std::string> environment;  // of all
  bool python = false;                // Python finds poseidon, and attaches it to what it runs
  int workers = 1;                    // of the job
  std::vector<NodeStart> nodes;
};

struct AgentStarted {
  Address coordinator;             // the one that answered
  std::map<int, std::int64_t> pids;  // by number
};

struct NodeOutput {
  int number = 0;
  bool is_error = false;  // standard error, not standard output
  std::string bytes;
};

struct NodeExit {
  int number = 0;
  Exit exit;
  double cpu_seconds = 0;
  std::optional<Error> said;  // the sentence that it has left
};

std::string encode(const AgentHello& hello);
std::string encode(const AgentStart& start);
std::string encode(const AgentStarted& started);
std::string encode(const NodeOutput& output);
std::string encode(const NodeExit& exit);
std::string encode(const Error& error);
// kCorruptFrame where the text is something else.
Result<AgentHello> decode_hello(std::string_view body);
Result<AgentStart> decode_start(std::string_view body);
Result<AgentStarted> decode_started(std::string_view body);
Result<NodeOutput> decode_output(std::string_view body);
Result<NodeExit> decode_exit(std::string_view body);
Result<int> decode_signal(std::string_view body);
Error decode_error(std::string_view body);

}  // namespace poseidon::launch
