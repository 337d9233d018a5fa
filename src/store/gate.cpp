#include "store/gate.h"

#include <algorithm>

#include "base/check.h"

namespace poseidon::store {
namespace {

// What may be staged and promised together: the cap less what crosses a closing. But half of the cap at least: where much
// crosses, as over long links, the gate would otherwise be closed all the time.
std::size_t room_of(const GateOptions& options) {
  const std::size_t cap = options.staging_bytes_max;
  return std::max(cap - std::min(cap, options.crossing_bytes_max), cap / 2);
}

}  // namespace

Gate::Gate(GateOptions options, std::vector<GateChunk> chunks, TellFn tell)
    : chunks_(std::move(chunks)), tell_(std::move(tell)), others_(options.others), room_(room_of(options)),
      // With as much room as is staged, most of what has been begun can be admitted, and gives its memory back.
      watermark_(room_ / 2),
      // Much lower, so that the gate does not open for a few pieces only.
      low_mark_(watermark_ / 2), states_(chunks_.size()) {
  for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) states_[chunk].to_come = others_ * chunks_[chunk].bytes;
}

void Gate::opened(std::size_t chunk, Iteration iteration) {
  if (!numbered_) {
    // All tensors begin with the same one, most likely.
    numbered_ = true;
    for (State& state : states_) state.iteration = iteration;
  }
  State& state = states_[chunk];
  if (state.iteration == iteration) return;
  state.iteration = iteration;
  if (state.admitted) tell_admitted({name(chunk)});
}

void Gate::staged(std::size_t chunk, std::size_t bytes) {
  State& state = states_[chunk];
  POSEIDON_CHECK(bytes <= state.to_come, "staged ", bytes, " bytes where ", state.to_come, " were to come");
  staged_ += bytes;
  state.to_come -= bytes;
  if (state.admitted) expected_ -= bytes;
  const bool was_begun = std::exchange(state.begun, true);
  if (!closed_) {
    if (staged_ > watermark_) close();
  } else if (!was_begun && state.admitted) {
    ++under_way_;
  } else if (!was_begun) {
    begun_.insert(key(chunk));
    advance();
  }
}

void Gate::absent(std::size_t chunk) {
  State& state = states_[chunk];
  POSEIDON_CHECK(chunks_[chunk].bytes <= state.to_come, "an absence where ", state.to_come, " bytes were to come");
  state.to_come -= chunks_[chunk].bytes;
  if (state.admitted) expected_ -= chunks_[chunk].bytes;
  if (closed_) advance();
}

void Gate::summed(std::size_t chunk, std::size_t staged_bytes, bool finished) {
  staged_ -= staged_bytes;
  if (finished) {
    State& state = states_[chunk];
    if (closed_) {
      unfinished_.erase(key(chunk));
      begun_.erase(key(chunk));
      if (state.admitted && state.begun) --under_way_;
    }
    // The iterations of a tensor follow one another; if not, opened() says so.
    state = {.round = state.round + 1, .iteration = state.iteration + 1, .to_come = others_ * chunks_[chunk].bytes};
    if (closed_) unfinished_.insert(key(chunk));
  }
  if (closed_) advance();
}

void Gate::close() {
  closed_ = true;
  ++closings_;
  for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    unfinished_.insert(key(chunk));
    if (states_[chunk].begun) begun_.insert(key(chunk));
  }
  // Also where nothing is to come of what it admits: nobody must think it open.
  tell_admitted(admit_more());
}

void Gate::open() {
  closed_ = false;
  expected_ = 0;
  under_way_ = 0;
  unfinished_.clear();
  begun_.clear();
  for (State& state : states_) state.admitted = false;
  tell_({.closing = closings_, .open = true, .admitted = {}});
}

bool Gate::has_room_for(std::size_t chunk) const { return staged_ + expected_ + states_[chunk].to_come <= room_; }

void Gate::admit(std::size_t chunk, std::vector<wire::ChunkName>& names) {
  states_[chunk].admitted = true;
  expected_ += states_[chunk].to_come;
  if (states_[chunk].begun) ++under_way_;
  begun_.erase(key(chunk));
  if (states_[chunk].to_come > 0) names.push_back(name(chunk));
}

void Gate::advance() {
  if (staged_ <= low_mark_) return open();
  const std::vector<wire::ChunkName> names = admit_more();
  if (!names.empty()) tell_admitted(names);
}

std::vector<wire::ChunkName> Gate::admit_more() {
  std::vector<wire::ChunkName> names;
  const std::size_t lowest = lowest_unfinished();
  if (!states_[lowest].admitted) admit(lowest, names);
  if (under_way_ == 0 && !begun_.empty()) admit(begun_.begin()->second, names);
  while (!begun_.empty() && has_room_for(begun_.begin()->second)) admit(begun_.begin()->second, names);
  if (begun_.empty()) {
    for (const auto& [round, chunk] : unfinished_) {
      if (round != states_[lowest].round || chunks_[chunk].layer != chunks_[lowest].layer) break;
      if (states_[chunk].admitted) continue;
      if (!has_room_for(chunk)) break;
      admit(chunk, names);
    }
  }
  return names;
}

wire::ChunkName Gate::name(std::size_t chunk) const { return {chunks_[chunk].tensor, chunks_[chunk].offset, states_[chunk].iteration}; }

void Gate::tell_admitted(const std::vector<wire::ChunkName>& names) {
  std::size_t begin = 0;
  do {
    const std::size_t end = std::min(names.size(), begin + wire::kAdmittedMax);
    tell_({.closing = closings_, .open = false, .admitted = {names.begin() + static_cast<std::ptrdiff_t>(begin),
                                                            names.begin() + static_cast<std::ptrdiff_t>(end)}});
    begin = end;
  } while (begin < names.size());
}

}  // namespace poseidon::store
