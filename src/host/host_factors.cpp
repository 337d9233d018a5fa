#include "host/host_factors.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "host/shares.h"

namespace poseidon::host {

HostFactors::HostFactors(Group& group, ExchangeOptions exchange, HostFactorsOptions options)
    : Exchange(group, std::move(exchange)), shape_(options) {}

HostFactors::~HostFactors() { *here_ = false; }

void HostFactors::submit(Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  POSEIDON_CHECK(gradient.rows <= shape_.batch_max, "layer ", options_.name, ": ", gradient.rows, " rows of factors, ",
                 shape_.batch_max, " were announced");
  gradient_ = gradient;
  begin(iteration, true, gradient.samples, std::move(on_synced));
}

// Results are written by others only on a host alone; else at the leader, by its session, and copied by the others.
std::array<std::size_t, Exchange::kPlacesMax> HostFactors::offered(std::size_t place, bool) const {
  const bool receives = group_.alone() || place == 0;
  return {shape_.batch_max * (shape_.rows + shape_.cols) * width(), receives ? weight_bytes() : 0, receives ? bias_bytes() : 0};
}

bool HostFactors::uses(std::size_t, std::size_t which) const {
  return group_.alone() || (which == kFactors) == group_.leads();
}

Result<std::array<wire::HostPlace, Exchange::kPlacesMax>> HostFactors::offer_all(Part& own) {
  const std::array<std::size_t, kPlacesMax> bytes = offered(group_.self(), true);
  const std::array<std::byte*, kPlacesMax> wanted = {nullptr, gradient_.weight.data, gradient_.bias.data};
  const std::array<std::shared_ptr<std::byte>*, kPlacesMax> slots = {&factors_, &weight_slot_, &bias_slot_};
  std::array<wire::HostPlace, kPlacesMax> places{};
  for (std::size_t which = 0; which < kPlacesMax; ++which) {
    if (bytes[which] == 0) continue;
    const Result<Group::Offer> offer = group_.offer(wanted[which], bytes[which], *slots[which]);
    if (!offer) return offer.error();
    // Borrowed from the caller, or kept by a slot.
    own.memory[which] = std::shared_ptr<std::byte>(std::shared_ptr<void>(), offer->data);
    places[which] = offer->place;
  }
  return places;
}

void HostFactors::copy_own_rows(std::byte* to, std::size_t begin, std::size_t end) const {
  const auto copy = [&](std::byte* matrix, const TensorView& from, std::size_t row_bytes) {
    const std::size_t given = std::clamp(gradient_.rows, begin, end);
    if (given > begin) std::memcpy(matrix + begin * row_bytes, from.data + begin * row_bytes, (given - begin) * row_bytes);
    std::memset(matrix + given * row_bytes, 0, (end - given) * row_bytes);
  };
  copy(to, gradient_.outputs, shape_.rows * width());
  copy(to + shape_.batch_max * shape_.rows * width(), gradient_.inputs, shape_.cols * width());
}

void HostFactors::prepare(Part& own, bool, std::function<void(const std::array<wire::HostPlace, kPlacesMax>&)> then) {
  const Result<std::array<wire::HostPlace, kPlacesMax>> places = offer_all(own);
  if (!places) return error(places.error());
  // Before all sums of this layer: others wait for it.
  group_.work().add({.priority = {0, options_.layer, runtime::SendClass::kFactor},
                     .count = shape_.batch_max,
                     .per_piece = 1,
                     .piece =
                         [this](std::size_t begin, std::size_t end, const std::function<void()>& next) {
                           copy_own_rows(factors_.get(), begin, end);
                           next();
                         },
                     .done =
                         [this, places = *places, then = std::move(then)] {
                           gradient_.hold.reset();
                           then(places);
                         }});
}

bool HostFactors::has_share(std::size_t place) const {
  return group_.alone() && share_of_rows(shape_.rows, group_.size(), place).size() > 0;
}

void HostFactors::stack(const std::shared_ptr<Round>& round, std::size_t begin, std::size_t end, Stacked& into,
                        std::function<void()> then) {
  const std::size_t k = shape_.batch_max;
  const std::size_t u_row = (end - begin) * width();
  const std::size_t v_row = shape_.cols * width();
  if (!into.outputs) {
    into.outputs = base::make_aligned(group_.size() * k * u_row);
    into.inputs = base::make_aligned(group_.size() * k * v_row);
  }
  group_.work().add({.priority = priority(*round),
                     .count = group_.size() * k,
                     .per_piece = 1,
                     .piece =
                         [this, round, u = into.outputs.get(), v = into.inputs.get(), k, u_row, v_row, begin](
                             std::size_t row, std::size_t, const std::function<void()>& next) {
                           const std::byte* const factors = round->parts[row / k].memory[kFactors].get();
                           const std::byte* const inputs = factors + k * shape_.rows * width();
                           std::memcpy(u + row * u_row, factors + ((row % k) * shape_.rows + begin) * width(), u_row);
                           std::memcpy(v + row * v_row, inputs + (row % k) * v_row, v_row);
                           next();
                         },
                     .done = std::move(then)});
}

void HostFactors::combine(const std::shared_ptr<Round>& round, std::function<void()> then) {
  const Range share = share_of_rows(shape_.rows, group_.size(), group_.self());
  stack(round, share.begin, share.end, share_, [this, round, then = std::move(then)] { multiply(round, then); });
}

void HostFactors::multiply(const std::shared_ptr<Round>& round, std::function<void()> then) {
  const Range share = share_of_rows(shape_.rows, group_.size(), group_.self());
  const Part& own = round->parts[group_.self()];
  runtime::ProductJob job;
  job.weight = options_.tensor;
  job.dtype = shape_.dtype;
  job.rows = group_.size() * shape_.batch_max;
  job.m = share.size();
  job.n = shape_.cols;
  job.u = share_.outputs.get();
  job.v = share_.inputs.get();
  job.out = own.memory[kWeight].get() + share.begin * shape_.cols * width();
  job.out_stride = shape_.cols;
  if (shape_.bias) {
    job.bias = own.memory[kBias].get() + share.begin * width();
    job.bias_end = job.m;
  }
  group_.compute().product(job, [this, here = here_, round, then = std::move(then)](const std::optional<Error>& failure) {
    if (!*here) return;
    if (failure) return error(*failure);
    spread(round, then);
  });
}

void HostFactors::spread(const std::shared_ptr<Round>& round, std::function<void()> then) {
  const Range share = share_of_rows(shape_.rows, group_.size(), group_.self());
  const std::size_t row_bytes = shape_.cols * width();
  group_.work().add({.priority = priority(*round),
                     .count = share.size() * row_bytes,
                     .per_piece = wire::kPieceBytes,
                     .piece =
                         [this, round, at = share.begin * row_bytes](std::size_t begin, std::size_t end, const std::function<void()>& next) {
                           const std::byte* const own = round->parts[group_.self()].memory[kWeight].get();
                           for (const Part& part : round->parts) {
                             std::byte* const to = part.memory[kWeight].get();
                             if (to != own) std::memcpy(to + at + begin, own + at + begin, end - begin);
                           }
                           next();
                         },
                     .done =
                         [this, round, share, then = std::move(then)] {
                           const std::byte* const own = round->parts[group_.self()].memory[kBias].get();
                           for (const Part& part : round->parts) {
                             std::byte* const to = part.memory[kBias].get();
                             if (to != own) std::memcpy(to + share.begin * width(), own + share.begin * width(), share.size() * width());
                           }
                           then();
                         }});
}

std::shared_ptr<HostFactors::Stacked> HostFactors::take_buffers() {
  if (free_->empty()) free_->push_back(std::make_unique<Stacked>());
  std::unique_ptr<Stacked> taken = std::move(free_->back());
  free_->pop_back();
  // The last byte may leave on another lane, and after this is gone.
  return std::shared_ptr<Stacked>(taken.release(), [free = free_, &runtime = group_.runtime()](Stacked* back) {
    runtime.post([free, kept = std::shared_ptr<Stacked>(back)] { free->push_back(std::make_unique<Stacked>(std::move(*kept))); });
  });
}

void HostFactors::to_network(const std::shared_ptr<Round>& round, bool, SyncedFn on_synced) {
  const std::shared_ptr<Stacked> buffers = take_buffers();
  stack(round, 0, shape_.rows, *buffers, guarded(round, [this, round, buffers, on_synced = std::move(on_synced)] {
          const std::size_t rows = group_.size() * shape_.batch_max;
          const Part& own = round->parts[group_.self()];
          const auto view = [&](std::byte* data, std::size_t bytes) { return TensorView{data, bytes, shape_.dtype, {}}; };
          FactorGradient gradient{.outputs = view(buffers->outputs.get(), rows * shape_.rows * width()),
                                  .inputs = view(buffers->inputs.get(), rows * shape_.cols * width()),
                                  .rows = rows,
                                  .hold = buffers,
                                  .weight = view(own.memory[kWeight].get(), weight_bytes()),
                                  .bias = {},
                                  .ready = {},
                                  .samples = samples_of(*round)};
          if (shape_.bias) gradient.bias = view(own.memory[kBias].get(), bias_bytes());
          options_.network->submit_factors(shape_.layer, round->iteration, gradient, on_synced);
        }));
}

void HostFactors::fetch(const std::shared_ptr<Round>& round, std::function<void()> then) {
  const Part& from = round->parts[result_place()];
  const auto bias = [this, round, from = from.memory[kBias], then = std::move(then)] {
    group_.copy(priority(*round), from.get(), gradient_.bias.data, bias_bytes(), then);
  };
  group_.copy(priority(*round), from.memory[kWeight].get(), gradient_.weight.data, weight_bytes(), bias);
}

}  // namespace poseidon::host
