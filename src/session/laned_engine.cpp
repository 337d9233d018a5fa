#include "session/laned_engine.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/check.h"

namespace poseidon::session {

// One submission on its way over several lanes.
struct LanedEngine::Join {
  Join(std::size_t lanes, SyncedFn callback) : ends(lanes), on_synced(std::move(callback)), lanes_left(lanes) {}

  std::vector<Synced> ends;  // by part: each is written by its lane, before that one counts down
  SyncedFn on_synced;
  std::atomic<std::size_t> lanes_left;

  // The contributors are the same on all lanes, since a worker has a whole gradient or none.
  const Synced& end() const {
    const auto failed = std::find_if(ends.begin(), ends.end(), [](const Synced& synced) { return synced.error.has_value(); });
    return failed == ends.end() ? ends.front() : *failed;
  }
};

LanedEngine::LanedEngine(const Model& model, std::shared_ptr<const plan::LaneDeal> deal, std::vector<EngineLane> lanes)
    : deal_(std::move(deal)), lanes_(std::move(lanes)) {
  POSEIDON_CHECK(lanes_.size() == deal_->lanes(), lanes_.size(), " lanes, and the model is dealt to ", deal_->lanes());
  for (const LayerSpec& layer : model.layers) weight_of_.push_back(layer.tensors.empty() ? TensorId{0} : layer.tensors[0]);
}

LanedEngine::~LanedEngine() {
  *alive_ = false;
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    lanes_[lane].run([&] { lanes_[lane].engine.reset(); });
  }
}

void LanedEngine::for_each(const std::function<void(Engine&)>& task) const {
  task(home());
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    lanes_[lane].run([&] { task(*lanes_[lane].engine); });
  }
}

std::vector<SyncedFn> LanedEngine::parts_of(const std::vector<std::size_t>& lanes, SyncedFn on_synced) {
  // What lies at home alone needs nothing of this.
  if (lanes.size() == 1 && lanes.front() == 0) return {std::move(on_synced)};
  const auto join = std::make_shared<Join>(lanes.size(), std::move(on_synced));
  std::vector<SyncedFn> parts;
  for (std::size_t part = 0; part < lanes.size(); ++part) {
    const bool is_home = lanes[part] == 0;
    parts.push_back([join, part, is_home, home = lanes_.front().runtime, alive = alive_](const Synced& synced) {
      join->ends[part] = synced;
      if (join->lanes_left.fetch_sub(1) > 1) return;
      if (is_home) return join->on_synced(join->end());
      home->post([join, alive] {
        if (*alive) join->on_synced(join->end());
      });
    });
  }
  return parts;
}

void LanedEngine::submit(TensorId tensor, Iteration iteration, const DenseGradient& gradient, SyncedFn on_synced) {
  const std::vector<std::size_t>& lanes = deal_->lanes_of(tensor);
  std::vector<SyncedFn> parts = parts_of(lanes, std::move(on_synced));
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes_[lanes[i]].engine->submit(tensor, iteration, gradient, std::move(parts[i]));
}

void LanedEngine::submit_absent(TensorId tensor, Iteration iteration, TensorView destination, SyncedFn on_synced) {
  const std::vector<std::size_t>& lanes = deal_->lanes_of(tensor);
  std::vector<SyncedFn> parts = parts_of(lanes, std::move(on_synced));
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    lanes_[lanes[i]].engine->submit_absent(tensor, iteration, destination, std::move(parts[i]));
  }
}

void LanedEngine::submit_factors(LayerId layer, Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  const std::vector<std::size_t>& lanes = deal_->lanes_of(weight_of_[index(layer)]);
  POSEIDON_CHECK(lanes.size() == 1, "layer ", index(layer), " is synchronised densely");
  lanes_[lanes.front()].engine->submit_factors(layer, iteration, gradient, std::move(parts_of(lanes, std::move(on_synced)).front()));
}

void LanedEngine::broadcast(std::vector<TensorView> values, std::function<void()> done) {
  // A tensor's values travel on the first lane that it lives on. They are moved once, so that need not be fair.
  const auto lanes_left = std::make_shared<std::atomic<std::size_t>>(lanes_.size());
  const auto on_lane_done = [lanes_left, done = std::move(done), home = lanes_.front().runtime, alive = alive_] {
    if (lanes_left->fetch_sub(1) > 1) return;
    home->post([done, alive] {
      if (*alive) done();
    });
  };
  std::size_t lane = 0;
  for_each([&](Engine& engine) {
    std::vector<TensorView> mine = values;
    for (std::size_t t = 0; t < mine.size(); ++t) {
      if (deal_->lanes_of(TensorId{static_cast<std::uint32_t>(t)}).front() != lane) mine[t] = {};
    }
    engine.broadcast(std::move(mine), on_lane_done);
    ++lane;
  });
}

void LanedEngine::fail(const Error& error) {
  for_each([&](Engine& engine) { engine.fail(error); });
}

std::vector<std::string> LanedEngine::overdue(runtime::Duration age, std::size_t count) const {
  std::vector<std::string> sentences;
  for_each([&](Engine& engine) {
    for (std::string& sentence : engine.overdue(age, count)) {
      // The lanes of one server tell the same of a tensor that lies on several.
      const bool is_new = std::find(sentences.begin(), sentences.end(), sentence) == sentences.end();
      if (is_new && sentences.size() < count) sentences.push_back(std::move(sentence));
    }
  });
  return sentences;
}

EngineUse LanedEngine::use() const {
  EngineUse all;
  for_each([&](Engine& engine) {
    const EngineUse own = engine.use();
    all.tensors.resize(own.tensors.size());
    for (std::size_t t = 0; t < own.tensors.size(); ++t) {
      all.tensors[t].sent += own.tensors[t].sent;
      all.tensors[t].received += own.tensors[t].received;
    }
    // Perhaps not at the same time, so at most so much.
    all.staging_bytes_max += own.staging_bytes_max;
  });
  return all;
}

}  // namespace poseidon::session
