#include "cluster/messages.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "plan/lanes.h"

namespace poseidon::cluster {
namespace {

using nlohmann::json;

constexpr std::size_t kMembersMax = 65'536;
constexpr std::size_t kTensorsMax = 1'000'000;
constexpr std::size_t kDimensionsMax = 16;
constexpr std::size_t kEndpointsMax = 64;
constexpr std::array<ErrorCode, 9> kCodes = {ErrorCode::kInvalid,  ErrorCode::kNotFound, ErrorCode::kCorruptFrame,
                                             ErrorCode::kStaleEpoch, ErrorCode::kPeerLost, ErrorCode::kRefused,
                                             ErrorCode::kTimeout,  ErrorCode::kAborted,  ErrorCode::kSystem};

// What decode() throws to itself: nlohmann's own exceptions serve for wrong types and missing fields.
[[noreturn]] void bad(const std::string& what) { throw json::other_error::create(501, what, nullptr); }

std::uint64_t natural(const json& object, const char* field, std::uint64_t most) {
  const json& value = object.at(field);
  if (!value.is_number_integer() || (value.is_number_integer() && !value.is_number_unsigned() && value.get<std::int64_t>() < 0)) {
    bad(base::concat(field, " must be a natural number"));
  }
  const auto number = value.get<std::uint64_t>();
  if (number > most) bad(base::concat(field, " must be at most ", most));
  return number;
}

const json& list(const json& object, const char* field, std::size_t most) {
  const json& value = object.at(field);
  if (!value.is_array() || value.size() > most) bad(base::concat(field, " must be a list of at most ", most));
  return value;
}

double positive(const json& object, const char* field) {
  const double value = object.at(field).get<double>();
  if (!(value > 0) || value > std::numeric_limits<double>::max()) bad(base::concat(field, " must be positive"));
  return value;
}

json to_json(const MemberInfo& info) {
  json endpoints = json::array();
  for (const runtime::Endpoint& e : info.endpoints) {
    endpoints.push_back({{"host", e.host}, {"port", e.port}, {"lane", static_cast<std::uint32_t>(e.lane)}});
  }
  json object = {{"member", index(info.member)}, {"rank", index(info.rank)}, {"host", info.host},
                 {"pid", info.pid},              {"lanes", info.lanes},      {"endpoints", endpoints}};
  if (info.server) object["server"] = *info.server;
  object["machine"] = info.machine;
  object["memory"] = info.memory;
  return object;
}

MemberInfo member_from(const json& object) {
  MemberInfo info;
  info.member = Member{static_cast<std::uint32_t>(natural(object, "member", UINT32_MAX))};
  info.rank = Rank{static_cast<std::int32_t>(natural(object, "rank", kMembersMax))};
  info.host = object.at("host").get<std::string>();
  info.pid = static_cast<std::int64_t>(natural(object, "pid", INT64_MAX));
  if (object.contains("server")) info.server = static_cast<std::uint32_t>(natural(object, "server", kMembersMax));
  info.lanes = static_cast<std::uint32_t>(natural(object, "lanes", plan::kLanesMax));
  if (info.lanes == 0) bad("lanes must be at least 1");
  for (const json& e : list(object, "endpoints", kEndpointsMax)) {
    const auto lane = static_cast<std::uint32_t>(natural(e, "lane", info.lanes - 1));
    info.endpoints.push_back({e.at("host").get<std::string>(), static_cast<std::uint16_t>(natural(e, "port", 65'535)), runtime::Lane{lane}});
  }
  info.machine = object.at("machine").get<std::string>();
  info.memory = object.at("memory").get<std::string>();
  return info;
}

json to_json(const Model& model) {
  json tensors = json::array();
  for (const TensorSpec& tensor : model.tensors) {
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"dtype", to_string(tensor.dtype)}});
  }
  json layers = json::array();
  for (const LayerSpec& layer : model.layers) {
    json ids = json::array();
    for (const TensorId id : layer.tensors) ids.push_back(index(id));
    layers.push_back({{"name", layer.name}, {"tensors", ids}, {"factor_rows", layer.factor_rows}});
  }
  return {{"tensors", tensors}, {"layers", layers}};
}

DType dtype_from(const std::string& name) {
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    if (name == to_string(type)) return type;
  }
  bad(base::concat("no element type is called ", name));
}

std::vector<TensorId> tensors_from(const json& object, const char* field, std::size_t tensors) {
  std::vector<TensorId> ids;
  for (const json& id : list(object, field, kTensorsMax)) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= tensors) bad(base::concat(field, " name a tensor that is not there"));
    ids.push_back(TensorId{id.get<std::uint32_t>()});
  }
  return ids;
}

Model model_from(const json& object) {
  Model model;
  for (const json& entry : list(object, "tensors", kTensorsMax)) {
    TensorSpec tensor;
    tensor.name = entry.at("name").get<std::string>();
    std::size_t elements = 1;
    for (const json& extent : list(entry, "shape", kDimensionsMax)) {
      const auto size = extent.get<std::int64_t>();
      if (size < 0 || (size > 0 && elements > (std::size_t{1} << 50) / static_cast<std::size_t>(size))) bad("a shape is out of bounds");
      elements *= static_cast<std::size_t>(size);
      tensor.shape.push_back(size);
    }
    tensor.dtype = dtype_from(entry.at("dtype").get<std::string>());
    model.tensors.push_back(std::move(tensor));
  }
  for (const json& entry : list(object, "layers", kTensorsMax)) {
    LayerSpec layer;
    layer.name = entry.at("name").get<std::string>();
    layer.tensors = tensors_from(entry, "tensors", model.tensors.size());
    if (layer.tensors.empty()) bad("a layer without tensors");
    layer.factor_rows = natural(entry, "factor_rows", std::uint64_t{1} << 40);
    if (layer.factor_rows > 0 && (model.tensors[index(layer.tensors[0])].shape.size() != 2 || layer.tensors.size() > 2)) {
      bad("a factor layer must have a matrix, and at most a bias");
    }
    model.layers.push_back(std::move(layer));
  }
  return model;
}

double not_negative(const json& value, const char* what) {
  const double number = value.get<double>();
  if (!(number >= 0) || number > std::numeric_limits<double>::max()) bad(base::concat(what, " must not be negative"));
  return number;
}

plan::Profile profile_from(const json& object) {
  plan::Profile profile{natural(object, "iteration", UINT64_MAX), not_negative(object.at("iteration_seconds"), "iteration_seconds"),
                        not_negative(object.at("waited_seconds"), "waited_seconds"), {}};
  for (const json& entry : list(object, "layers", kTensorsMax)) {
    profile.layers.push_back({not_negative(entry.at(0), "a layer's time"), not_negative(entry.at(1), "a layer's time")});
  }
  return profile;
}

ErrorCode code_from(const json& object) {
  const auto name = object.at("code").get<std::string>();
  for (const ErrorCode code : kCodes) {
    if (name == to_string(code)) return code;
  }
  bad(base::concat("no error code is called ", name));
}

// One overload for each kind: what it is called, and its fields.
json body(const Join& m) {
  return {{"kind", "join"},       {"self", to_json(m.self)}, {"model", to_json(m.model)}, {"arithmetic", m.arithmetic},
          {"first", m.first},     {"replans", m.replans},     {"provisional", m.provisional}};
}
json body(const Linked&) { return {{"kind", "linked"}}; }
json body(const Speeds& m) {
  return {{"kind", "speeds"},
          {"link_bytes_per_second", m.speeds.link_bytes_per_second},
          {"latency_seconds", m.speeds.latency_seconds},
          {"flops_per_second", m.speeds.flops_per_second},
          {"sum_bytes_per_second", m.speeds.sum_bytes_per_second}};
}
json body(const Ready&) { return {{"kind", "ready"}}; }
json body(const Profiled& m) {
  json layers = json::array();
  for (const plan::ComputeTimes& layer : m.profile.layers) layers.push_back({layer.forward, layer.backward});
  return {{"kind", "profiled"},
          {"iteration", m.profile.iteration},
          {"iteration_seconds", m.profile.iteration_seconds},
          {"waited_seconds", m.profile.waited_seconds},
          {"layers", layers}};
}
json body(const Settled&) { return {{"kind", "settled"}}; }
json body(const Renew& m) {
  json values = json::array();
  for (const TensorId id : m.values) values.push_back(index(id));
  return {{"kind", "renew"}, {"model", to_json(m.model)}, {"first", m.first}, {"values", values}};
}
json body(const Note& m) { return {{"kind", "note"}, {"body", m.body}}; }
json body(const Gather& m) { return {{"kind", "gather"}, {"number", m.number}, {"body", m.body}}; }
json body(const Paused& m) { return {{"kind", "paused"}, {"number", m.number}, {"limit", m.limit}}; }
json body(const Leave& m) { return {{"kind", "leave"}, {"next", m.next}}; }
json body(const Failed& m) { return {{"kind", "failed"}, {"code", to_string(m.code)}, {"message", m.message}}; }
json body(const PeerLost& m) { return {{"kind", "peer_lost"}, {"peer", index(m.peer)}, {"why", m.why}}; }
json body(const OpenEpoch& m) {
  json members = json::array();
  for (const MemberInfo& info : m.members) members.push_back(to_json(info));
  return {{"kind", "open_epoch"}, {"epoch", index(m.epoch)}, {"members", members}};
}
json body(const Measure& m) { return {{"kind", "measure"}, {"shift", m.shift}, {"arithmetic", m.arithmetic}}; }
json body(const UsePlan& m) {
  json use = {{"kind", "use_plan"}, {"plan", m.plan}, {"window_bytes", m.window_bytes}, {"watch", m.watch}};
  if (m.until) use["until"] = *m.until;
  if (m.model) use["model"] = to_json(*m.model);
  return use;
}
json body(const Start&) { return {{"kind", "start"}}; }
json body(const Gathered& m) { return {{"kind", "gathered"}, {"number", m.number}, {"bodies", m.bodies}}; }
json body(const Pause& m) { return {{"kind", "pause"}, {"number", m.number}}; }
json body(const HoldBefore& m) { return {{"kind", "hold_before"}, {"iteration", m.iteration}}; }
json body(const GoOn&) { return {{"kind", "go_on"}}; }
json body(const StopAfter& m) { return {{"kind", "stop_after"}, {"iteration", m.iteration}}; }
json body(const Left& m) { return {{"kind", "left"}, {"who", m.who}, {"next", m.next}}; }
json body(const Goodbye&) { return {{"kind", "goodbye"}}; }
json body(const Abort& m) { return {{"kind", "abort"}, {"code", to_string(m.code)}, {"message", m.message}}; }
json body(const Alive&) { return {{"kind", "alive"}}; }

Message message_from(const json& m) {
  const auto kind = m.at("kind").get<std::string>();
  if (kind == "alive") return Alive{};
  if (kind == "join") {
    return Join{member_from(m.at("self")), model_from(m.at("model")), m.at("arithmetic").get<std::string>(),
                natural(m, "first", UINT64_MAX), m.at("replans").get<bool>(), m.at("provisional").get<bool>()};
  }
  if (kind == "linked") return Linked{};
  if (kind == "speeds") {
    return Speeds{{positive(m, "link_bytes_per_second"), positive(m, "latency_seconds"), positive(m, "flops_per_second"),
                   positive(m, "sum_bytes_per_second")}};
  }
  if (kind == "ready") return Ready{};
  if (kind == "profiled") return Profiled{profile_from(m)};
  if (kind == "settled") return Settled{};
  if (kind == "renew") {
    Renew renew{model_from(m.at("model")), natural(m, "first", UINT64_MAX), {}};
    renew.values = tensors_from(m, "values", renew.model.tensors.size());
    return renew;
  }
  if (kind == "note") return Note{m.at("body").get<std::string>()};
  if (kind == "gather") return Gather{natural(m, "number", UINT64_MAX), m.at("body").get<std::string>()};
  if (kind == "paused") return Paused{natural(m, "number", UINT64_MAX), natural(m, "limit", UINT64_MAX)};
  if (kind == "leave") return Leave{natural(m, "next", UINT64_MAX)};
  if (kind == "failed") return Failed{code_from(m), m.at("message").get<std::string>()};
  if (kind == "peer_lost") {
    return PeerLost{Rank{static_cast<std::int32_t>(natural(m, "peer", kMembersMax))}, m.at("why").get<std::string>()};
  }
  if (kind == "open_epoch") {
    OpenEpoch open{Epoch{static_cast<std::uint32_t>(natural(m, "epoch", UINT32_MAX))}, {}};
    for (const json& entry : list(m, "members", kMembersMax)) open.members.push_back(member_from(entry));
    return open;
  }
  if (kind == "measure") {
    return Measure{static_cast<std::uint32_t>(natural(m, "shift", kMembersMax)), m.at("arithmetic").get<bool>()};
  }
  if (kind == "use_plan") {
    UsePlan use{.plan = m.at("plan").get<std::string>(),
                .window_bytes = natural(m, "window_bytes", std::uint64_t{1} << 40),
                .until = {},
                .watch = m.at("watch").get<bool>(),
                .model = {}};
    if (m.contains("until")) use.until = natural(m, "until", UINT64_MAX);
    if (m.contains("model")) use.model = model_from(m.at("model"));
    return use;
  }
  if (kind == "start") return Start{};
  if (kind == "gathered") {
    Gathered gathered{natural(m, "number", UINT64_MAX), {}};
    for (const json& entry : list(m, "bodies", kMembersMax)) gathered.bodies.push_back(entry.get<std::string>());
    return gathered;
  }
  if (kind == "pause") return Pause{natural(m, "number", UINT64_MAX)};
  if (kind == "hold_before") return HoldBefore{natural(m, "iteration", UINT64_MAX)};
  if (kind == "go_on") return GoOn{};
  if (kind == "stop_after") return StopAfter{natural(m, "iteration", UINT64_MAX)};
  if (kind == "left") return Left{m.at("who").get<std::string>(), natural(m, "next", UINT64_MAX)};
  if (kind == "goodbye") return Goodbye{};
  if (kind == "abort") return Abort{code_from(m), m.at("message").get<std::string>()};
  bad(base::concat("no message is called ", kind));
}

}  // namespace

std::string MemberInfo::text() const {
  const std::string name = server ? base::concat("server ", *server) : base::concat("rank ", index(rank));
  return base::concat(name, " (pid ", pid, " on ", host, ")");
}

std::string encode(const Message& message) {
  // Texts may hold bytes that are no UTF-8 (file names): replaced, not refused.
  return std::visit([](const auto& m) { return body(m).dump(-1, ' ', false, json::error_handler_t::replace); }, message);
}

Result<Message> decode(std::span<const std::byte> bytes) {
  try {
    const char* const begin = reinterpret_cast<const char*>(bytes.data());
    return message_from(json::parse(begin, begin + bytes.size()));
  } catch (const json::exception& e) {
    return Error{ErrorCode::kCorruptFrame, base::concat("a control message cannot be read: ", e.what())};
  }
}

void send(runtime::Transport& transport, Member to, const Message& message) {
  const auto text = std::make_shared<std::string>(encode(message));
  runtime::Frame frame;
  frame.parts.push_back({.type = wire::FrameType::kControl, .bytes = static_cast<std::uint32_t>(text->size())});
  const runtime::Region region{reinterpret_cast<std::byte*>(text->data()), text->size(), {}, 0};
  frame.payload.push_back({region, 0, text->size()});
  transport.send({to, runtime::Lane{0}}, std::move(frame), [text] {});
}

}  // namespace poseidon::cluster
