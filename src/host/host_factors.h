// One factor layer in a host's shared memory: the members' rows of U and V one below the other, as if one worker had them all.
//
// Each member lays its rows into shared memory, at most K of them, with zeros for those that it lacks: so every member's rows
// have a fixed place, and nobody must know the others' numbers.
//   One host: each member multiplies its share of the rows of the matrix over all members' factors, and writes the product into
//   every member's memory. Each number is computed once.
//   Several: the leader lays all rows into one pair of matrices, which its session sends over the network as one worker's, once
//   per host; the others copy the resulting matrix from the leader's memory.
//
// Lane only.
#pragma once

#include <vector>

#include "base/aligned.h"
#include "host/exchange.h"

namespace poseidon::host {

struct HostFactorsOptions {
  LayerId layer{0};
  std::size_t rows = 0;       // M
  std::size_t cols = 0;       // N
  std::size_t batch_max = 0;  // K, rows of the factors per worker
  bool bias = false;
  DType dtype = DType::kFloat32;
  std::uint32_t workers = 1;  // of the whole job
};

class HostFactors final : public Exchange {
 public:
  HostFactors(Group& group, ExchangeOptions exchange, HostFactorsOptions options);
  ~HostFactors() override;

  // Session::submit_factors, on the lane. `hold` is released when the rows have been copied.
  void submit(Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced);

 private:
  // U and V of a whole group, one below the other.
  struct Stacked {
    base::AlignedBytes outputs;
    base::AlignedBytes inputs;
  };
  using Buffers = std::vector<std::unique_ptr<Stacked>>;
  // What lies at which place.
  enum Which : std::size_t { kFactors = 0, kWeight = 1, kBias = 2 };

  std::array<std::size_t, kPlacesMax> offered(std::size_t place, bool present) const override;
  bool uses(std::size_t owner, std::size_t which) const override;
  void prepare(Part& own, bool present, std::function<void(const std::array<wire::HostPlace, kPlacesMax>&)> then) override;
  bool has_share(std::size_t place) const override;
  void combine(const std::shared_ptr<Round>& round, std::function<void()> then) override;
  void to_network(const std::shared_ptr<Round>& round, bool present, SyncedFn on_synced) override;
  void fetch(const std::shared_ptr<Round>& round, std::function<void()> then) override;
  std::uint32_t contributors(std::uint32_t) const override { return shape_.workers; }

  std::size_t width() const { return bytes_of(shape_.dtype); }
  std::size_t weight_bytes() const { return shape_.rows * shape_.cols * width(); }
  std::size_t bias_bytes() const { return shape_.bias ? shape_.rows * width() : 0; }
  Result<std::array<wire::HostPlace, kPlacesMax>> offer_all(Part& own);
  void copy_own_rows(std::byte* to, std::size_t begin, std::size_t end) const;
  // Lays columns [begin, end) of all members' U, and all columns of V, one below the other; then `then`.
  void stack(const std::shared_ptr<Round>& round, std::size_t begin, std::size_t end, Stacked& into, std::function<void()> then);
  void multiply(const std::shared_ptr<Round>& round, std::function<void()> then);
  void spread(const std::shared_ptr<Round>& round, std::function<void()> then);
  std::shared_ptr<Stacked> take_buffers();

  HostFactorsOptions shape_;
  FactorGradient gradient_;                 // the caller's, of the present iteration
  std::shared_ptr<std::byte> factors_;      // shared: this member's U [K, M], then V [K, N]
  std::shared_ptr<std::byte> weight_slot_;  // shared, where the caller's memory is not; made on first use
  std::shared_ptr<std::byte> bias_slot_;
  Stacked share_;                           // for this member's share of the product
  // For the network: a pair is free again when its last byte has left. Two come to be (factor::FactorExchange says why).
  std::shared_ptr<Buffers> free_ = std::make_shared<Buffers>();
  std::shared_ptr<bool> here_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::host
