// One densely synchronised tensor in a host's shared memory: each member adds up its share of all members' gradients.
//
// In the order of ranks, piece by piece; a piece is written while what was read for it is still in cache. Of a gradient of B bytes
// on a host of n workers n·B bytes are read and, without other hosts, n·B written: the least that any way can do. A gradient that
// does not lie in shared memory is copied there, and the sum back.
//
// Lane only.
#pragma once

#include "host/exchange.h"

namespace poseidon::host {

struct HostTensorOptions {
  std::size_t bytes = 0;
  DType dtype = DType::kFloat32;
};

class HostTensor final : public Exchange {
 public:
  HostTensor(Group& group, ExchangeOptions exchange, HostTensorOptions options);

  // `present` false: Session::submit_absent. The gradient's memory is borrowed until on_synced.
  void submit(Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced);

 private:
  std::array<std::size_t, kPlacesMax> offered(std::size_t place, bool present) const override;
  bool uses(std::size_t owner, std::size_t which) const override;
  void prepare(Part& own, bool present, std::function<void(const std::array<wire::HostPlace, kPlacesMax>&)> then) override;
  bool has_share(std::size_t place) const override;
  void combine(const std::shared_ptr<Round>& round, std::function<void()> then) override;
  void to_network(const std::shared_ptr<Round>& round, bool present, SyncedFn on_synced) override;
  void fetch(const std::shared_ptr<Round>& round, std::function<void()> then) override;

  HostTensorOptions options_of_tensor_;
  TensorView gradient_;               // the caller's, of the present iteration
  std::shared_ptr<std::byte> slot_;   // shared, for gradients that are not; made on first use
};

}  // namespace poseidon::host
