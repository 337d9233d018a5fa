// Which of a member's lanes (event loops) moves what.
//
// A message goes from a lane to the same lane of its peer, so all members must deal alike: this is a pure function of the model
// and the plan. It decides where the work is done and changes no bit of any result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/partition.h"
#include "plan/plan.h"
#include "poseidon/types.h"

namespace poseidon::plan {

constexpr std::size_t kLanesMax = 16;

struct LaneDealOptions {
  std::size_t lanes = 1;  // 1 to kLanesMax
  // A dense tensor of up to so many bytes lives whole on one lane. To gather a tensor from several lanes costs some ten
  // microseconds of handing over between threads: what 64 KiB take at 50 Gbit/s, and a sixteenth of what 1 MiB takes.
  std::size_t whole_bytes_max = std::size_t{1} << 20;
};

// Who has had the fewest bytes of late, layer by layer, gets the next: of each server's chunks by itself, since a server's lane
// both sums and sends. A factor layer lives whole on one lane, as does a small tensor.
class LaneDeal {
 public:
  LaneDeal(const Model& model, const Plan& plan, const LaneDealOptions& options);

  std::size_t lanes() const { return lanes_; }
  // partition()'s chunks that live on the lane, by tensor, in order of bytes.
  std::vector<std::vector<Chunk>> chunks_of(std::size_t lane) const;
  // The lanes that a tensor lives on, in ascending order: at least one. All tensors of a factor layer live on the layer's.
  const std::vector<std::size_t>& lanes_of(TensorId tensor) const { return lanes_of_[index(tensor)]; }
  bool lives_on(TensorId tensor, std::size_t lane) const;

 private:
  std::size_t lanes_;
  std::vector<std::vector<Chunk>> chunks_;                 // by tensor
  std::vector<std::vector<std::size_t>> lane_of_chunk_;    // by tensor, by chunk
  std::vector<std::vector<std::size_t>> lanes_of_;         // by tensor
};

}  // namespace poseidon::plan
