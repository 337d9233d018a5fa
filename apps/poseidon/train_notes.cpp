#include "apps/poseidon/train_notes.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace poseidon::app {
namespace {

using nlohmann::json;

// JSON has no infinities and no NaN; a diverged loss is told as null and read back as NaN.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
double number(const json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

json scores_to_json(const std::vector<ScoreNote>& scores) {
  json list = json::array();
  for (const ScoreNote& score : scores) list.push_back({score.name, number(score.value), score.loss_weight});
  return list;
}

std::vector<ScoreNote> scores_from_json(const json& list) {
  std::vector<ScoreNote> scores;
  for (const json& s : list) scores.push_back({s.at(0).get<std::string>(), number(s.at(1)), s.at(2).get<double>()});
  return scores;
}

json body(const StartNote& note) { return {{"note", "start"}, {"net", note.net}, {"rate_policy", note.rate_policy}}; }

json body(const ProgressNote& note) {
  json iterations = json::array();
  for (const IterationNote& i : note.iterations) {
    iterations.push_back({i.iteration, number(i.loss), number(i.smoothed_loss), i.rate, i.records, i.seconds, i.display, scores_to_json(i.outputs)});
  }
  return {{"note", "progress"}, {"iterations", iterations}, {"wait_seconds", note.wait_seconds}};
}

json body(const TestNote& note) {
  return {{"note", "test"}, {"iteration", note.iteration}, {"net", note.net}, {"scores", scores_to_json(note.scores)}, {"loss", number(note.loss)}};
}

json body(const SnapshotNote& note) {
  return {{"note", "snapshot"}, {"iteration", note.iteration}, {"model", note.model}, {"state", note.state}};
}

json body(const TimelineNote& note) { return {{"note", "timeline"}, {"part", note.part}}; }

json body(const FinalNote& note) {
  json layers = json::array();
  for (const LayerTraffic& l : note.layers) layers.push_back({l.name, l.bytes_sent, l.bytes_received, l.rows});
  return {{"note", "final"},
          {"iterations", note.iterations},
          {"iteration", note.iteration},
          {"seconds", note.seconds},
          {"wait_seconds", note.wait_seconds},
          {"digest", note.digest},
          {"layers", layers},
          {"bytes_sent", note.bytes_sent},
          {"bytes_received", note.bytes_received},
          {"staging_bytes_max", note.staging_bytes_max}};
}

TrainNote note_from(const json& j) {
  const auto kind = j.at("note").get<std::string>();
  if (kind == "start") return StartNote{j.at("net").get<std::string>(), j.at("rate_policy").get<std::string>()};
  if (kind == "timeline") return TimelineNote{j.at("part").get<std::string>()};
  if (kind == "progress") {
    ProgressNote note{{}, j.at("wait_seconds").get<double>()};
    for (const json& i : j.at("iterations")) {
      note.iterations.push_back({i.at(0).get<std::uint64_t>(), number(i.at(1)), number(i.at(2)), i.at(3).get<double>(),
                                 i.at(4).get<std::uint64_t>(), i.at(5).get<double>(), i.at(6).get<bool>(), scores_from_json(i.at(7))});
    }
    return note;
  }
  if (kind == "test") {
    return TestNote{j.at("iteration").get<std::uint64_t>(), j.at("net").get<std::uint64_t>(), scores_from_json(j.at("scores")), number(j.at("loss"))};
  }
  if (kind == "snapshot") {
    return SnapshotNote{j.at("iteration").get<std::uint64_t>(), j.at("model").get<std::string>(), j.at("state").get<std::string>()};
  }
  FinalNote note;
  note.iterations = j.at("iterations").get<std::uint64_t>();
  note.iteration = j.at("iteration").get<std::uint64_t>();
  note.seconds = j.at("seconds").get<double>();
  note.wait_seconds = j.at("wait_seconds").get<double>();
  note.digest = j.at("digest").get<std::string>();
  for (const json& l : j.at("layers")) {
    note.layers.push_back({l.at(0).get<std::string>(), l.at(1).get<std::uint64_t>(), l.at(2).get<std::uint64_t>(), l.at(3).get<bool>()});
  }
  note.bytes_sent = j.at("bytes_sent").get<std::uint64_t>();
  note.bytes_received = j.at("bytes_received").get<std::uint64_t>();
  note.staging_bytes_max = j.at("staging_bytes_max").get<std::uint64_t>();
  return note;
}

}  // namespace

std::string encode(const TrainNote& note) {
  return std::visit([](const auto& n) { return body(n).dump(-1, ' ', false, json::error_handler_t::replace); }, note);
}

Result<TrainNote> decode_note(std::string_view text) {
  try {
    return note_from(json::parse(text));
  } catch (const json::exception& e) {
    return Error{ErrorCode::kInvalid, e.what()};
  }
}

}  // namespace poseidon::app
