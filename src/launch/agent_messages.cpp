#include "launch/agent_messages.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "launch/sentence.h"

namespace poseidon::launch {
namespace {

using nlohmann::json;

constexpr std::size_t kLineMax = 64;
constexpr std::size_t kNoiseBytesMax = 4096;
constexpr int kNumberMax = 65'536;

constexpr std::array<std::pair<std::string_view, Speech>, 8> kNames = {{{"start", Speech::kStart},
                                                                        {"signal", Speech::kSignal},
                                                                        {"kill", Speech::kKill},
                                                                        {"hello", Speech::kHello},
                                                                        {"started", Speech::kStarted},
                                                                        {"refused", Speech::kRefused},
                                                                        {"output", Speech::kOutput},
                                                                        {"exit", Speech::kExit}}};

// What decode() throws to itself, beside nlohmann's own exceptions for wrong types and missing fields.
[[noreturn]] void bad(const std::string& what) { throw json::other_error::create(501, what, nullptr); }

template <typename T>
T integer(const json& object, const char* field, T least, T most) {
  const json& value = object.at(field);
  if (!value.is_number_integer()) bad(base::concat(field, " must be a whole number"));
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                                               : value.get<std::int64_t>() >= static_cast<std::int64_t>(least);
  const auto number = value.get<std::int64_t>();
  if (!fits || number < static_cast<std::int64_t>(least) || number > static_cast<std::int64_t>(most)) {
    bad(base::concat(field, " must be from ", least, " to ", most));
  }
  return static_cast<T>(number);
}

// No NUL: it would end a word before its end where the system takes it.
std::string text(const json& value, const char* what) {
  if (!value.is_string()) bad(base::concat(what, " must be text"));
  std::string words = value.get<std::string>();
  if (words.find('\0') != std::string::npos) bad(base::concat(what, " has a NUL in it"));
  return words;
}

std::string written(const json& object) { return object.dump(-1, ' ', false, json::error_handler_t::replace); }

template <typename T, typename Read>
Result<T> decoded(std::string_view body, const char* what, Read read) {
  try {
    const json object = json::parse(body);
    if (!object.is_object()) bad("it is no object");
    return read(object);
  } catch (const json::exception& error) {
    return Error{ErrorCode::kCorruptFrame, base::concat("the agent's message \"", what, "\" cannot be read: ", error.what())};
  }
}

json to_json(const Address& address) { return {{"host", address.host}, {"port", address.port}}; }
Address address_from(const json& object) { return {text(object.at("host"), "host"), integer(object, "port", 1, 65'535)}; }

std::map<std::string, std::string> environment_from(const json& object) {
  if (!object.is_object()) bad("environment must be an object");
  std::map<std::string, std::string> environment;
  for (const auto& [name, value] : object.items()) {
    if (name.empty() || name.find('=') != std::string::npos || name.find('\0') != std::string::npos) bad("environment has a variable without a name");
    environment[name] = text(value, "a variable");
  }
  return environment;
}

std::vector<std::string> words_from(const json& list) {
  if (!list.is_array() || list.empty()) bad("command must be a list of words");
  std::vector<std::string> words;
  for (const json& word : list) words.push_back(text(word, "a command's word"));
  if (words.front().empty()) bad("command names no program");
  return words;
}

bool is_secret(std::string_view digits) {
  return digits.size() >= 32 && digits.size() % 2 == 0 && digits.find_first_not_of("0123456789abcdef") == digits.npos;
}

}  // namespace

std::string to_bytes(const AgentMessage& message) {
  std::string_view name;
  for (const auto& [word, kind] : kNames) {
    if (kind == message.kind) name = word;
  }
  return base::concat(name, " ", message.body.size(), "\n", message.body);
}

bool AgentMessageReader::take_greeting() {
  // At the beginning of a line.
  for (std::size_t at = bytes_.find(kGreeting); at != std::string::npos; at = bytes_.find(kGreeting, at + 1)) {
    const bool begins_line = at == 0 ? noise_.empty() || noise_.back() == '\n' : bytes_[at - 1] == '\n';
    if (!begins_line) continue;
    noise_ += bytes_.substr(0, at);
    bytes_.erase(0, at + kGreeting.size());
    greeted_ = true;
    return true;
  }
  // Whole lines are noise; the last one may become the greeting.
  if (const std::size_t end = bytes_.rfind('\n'); end != std::string::npos) {
    noise_ += bytes_.substr(0, end + 1);
    bytes_.erase(0, end + 1);
  }
  if (bytes_.size() > kNoiseBytesMax) {
    noise_ += bytes_;
    bytes_.clear();
  }
  if (noise_.size() > kNoiseBytesMax) noise_.erase(0, noise_.size() - kNoiseBytesMax);
  return false;
}

Result<std::optional<AgentMessage>> AgentMessageReader::next() {
  if (!greeted_ && !take_greeting()) return std::optional<AgentMessage>();
  const auto corrupt = [this](const std::string& what) {
    return Error{ErrorCode::kCorruptFrame, base::concat("this is no message of an agent: ", what)};
  };
  const std::size_t end = bytes_.substr(0, kLineMax).find('\n');
  if (end == std::string::npos) {
    if (bytes_.size() >= kLineMax) return corrupt("its first line has no end");
    return std::optional<AgentMessage>();
  }
  const std::string_view line = std::string_view(bytes_).substr(0, end);
  const std::size_t space = line.find(' ');
  const std::string_view name = line.substr(0, space);
  const std::string_view digits = space == line.npos ? std::string_view() : line.substr(space + 1);
  std::size_t length = 0;
  const auto [stop, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (digits.empty() || failure != std::errc{} || stop != digits.data() + digits.size()) return corrupt("it has no length");
  if (length > kMessageBytesMax) return corrupt(base::concat("it is longer than ", kMessageBytesMax, " bytes"));
  std::optional<Speech> kind;
  for (const auto& [word, meaning] : kNames) {
    if (word == name) kind = meaning;
  }
  if (!kind) return corrupt("its kind is unknown");
  if (bytes_.size() - end - 1 < length) return std::optional<AgentMessage>();
  AgentMessage message{*kind, bytes_.substr(end + 1, length)};
  bytes_.erase(0, end + 1 + length);
  return std::optional(std::move(message));
}

std::string encode(const AgentHello& hello) {
  return written({{"version", hello.version}, {"host", hello.host}, {"cores", hello.cores}, {"pid", hello.pid}, {"free_port", hello.free_port}});
}

Result<AgentHello> decode_hello(std::string_view body) {
  return decoded<AgentHello>(body, "hello", [](const json& object) {
    return AgentHello{.version = text(object.at("version"), "version"),
                      .host = text(object.at("host"), "host"),
                      .cores = integer(object, "cores", 1, kNumberMax),
                      .pid = integer<std::int64_t>(object, "pid", 1, std::int64_t{1} << 40),
                      .free_port = integer(object, "free_port", 1, 65'535)};
  });
}

std::string encode(const AgentStart& start) {
  json coordinators = json::array();
  for (const Address& address : start.coordinators) coordinators.push_back(to_json(address));
  json nodes = json::array();
  for (const NodeStart& node : start.nodes) {
    nodes.push_back({{"number", node.number}, {"command", node.command}, {"environment", json(node.environment)}});
  }
  return written({{"secret", start.secret},
                  {"coordinators", coordinators},
                  {"folder", start.folder},
                  {"environment", json(start.environment)},
                  {"python", start.python},
                  {"workers", start.workers},
                  {"nodes", nodes}});
}

Result<AgentStart> decode_start(std::string_view body) {
  return decoded<AgentStart>(body, "start", [](const json& object) {
    AgentStart start{.secret = text(object.at("secret"), "secret"),
                     .coordinators = {},
                     .folder = text(object.at("folder"), "folder"),
                     .environment = environment_from(object.at("environment")),
                     .python = object.at("python").get<bool>(),
                     .workers = integer(object, "workers", 1, kNumberMax),
                     .nodes = {}};
    if (!is_secret(start.secret)) bad("secret must be 32 or more hexadecimal digits");
    for (const json& address : object.at("coordinators")) start.coordinators.push_back(address_from(address));
    if (start.coordinators.empty()) bad("coordinators names no address");
    for (const json& node : object.at("nodes")) {
      start.nodes.push_back({.number = integer(node, "number", 0, kNumberMax),
                             .command = words_from(node.at("command")),
                             .environment = environment_from(node.at("environment"))});
    }
    if (start.nodes.empty()) bad("nodes names no process");
    return start;
  });
}

std::string encode(const AgentStarted& started) {
  json pids = json::array();
  for (const auto& [number, pid] : started.pids) pids.push_back({{"number", number}, {"pid", pid}});
  return written({{"coordinator", to_json(started.coordinator)}, {"pids", pids}});
}

Result<AgentStarted> decode_started(std::string_view body) {
  return decoded<AgentStarted>(body, "started", [](const json& object) {
    AgentStarted started{.coordinator = address_from(object.at("coordinator")), .pids = {}};
    for (const json& entry : object.at("pids")) {
      started.pids[integer(entry, "number", 0, kNumberMax)] = integer<std::int64_t>(entry, "pid", 1, std::int64_t{1} << 40);
    }
    return started;
  });
}

std::string encode(const NodeOutput& output) { return base::concat(output.number, output.is_error ? " error\n" : " output\n", output.bytes); }

Result<NodeOutput> decode_output(std::string_view body) {
  const Error corrupt{ErrorCode::kCorruptFrame, "an agent's output does not say whose it is"};
  const std::size_t end = body.find('\n');
  if (end == body.npos) return corrupt;
  const std::string_view line = body.substr(0, end);
  NodeOutput output;
  const auto [stop, failure] = std::from_chars(line.data(), line.data() + line.size(), output.number);
  const std::string_view stream = line.substr(static_cast<std::size_t>(stop - line.data()));
  if (failure != std::errc{} || output.number < 0 || output.number > kNumberMax || (stream != " error" && stream != " output")) return corrupt;
  output.is_error = stream == " error";
  output.bytes = body.substr(end + 1);
  return output;
}

std::string encode(const NodeExit& exit) {
  json object = {{"number", exit.number}, {"code", exit.exit.code}, {"signal", exit.exit.signal}, {"cpu_seconds", exit.cpu_seconds}};
  if (exit.said) object["said"] = encode(*exit.said);
  return written(object);
}

Result<NodeExit> decode_exit(std::string_view body) {
  return decoded<NodeExit>(body, "exit", [](const json& object) {
    NodeExit exit{.number = integer(object, "number", 0, kNumberMax),
                  .exit = {.code = integer(object, "code", 0, 255), .signal = integer(object, "signal", 0, 127)},
                  .cpu_seconds = object.at("cpu_seconds").get<double>(),
                  .said = std::nullopt};
    if (object.contains("said")) exit.said = decode_error(text(object.at("said"), "said"));
    return exit;
  });
}

Result<int> decode_signal(std::string_view body) {
  int number = 0;
  const auto [stop, failure] = std::from_chars(body.data(), body.data() + body.size(), number);
  if (failure != std::errc{} || stop != body.data() + body.size() || number < 1 || number > 64) {
    return Error{ErrorCode::kCorruptFrame, "the launcher's message \"signal\" names none"};
  }
  return number;
}

std::string encode(const Error& error) { return sentence_of(error); }
Error decode_error(std::string_view body) { return error_of_sentence(body); }

}  // namespace poseidon::launch
