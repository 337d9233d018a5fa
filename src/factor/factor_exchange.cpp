#include "factor/factor_exchange.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::factor {

using plan::Block;
using runtime::Layout;
using runtime::Region;
using runtime::Sink;
using wire::FrameType;
using wire::PartHeader;

namespace {

// Columns [begin, end) of a [rows, cols] matrix.
runtime::Strided columns(const TensorView& matrix, std::size_t rows, std::size_t cols, std::size_t begin, std::size_t end,
                         std::size_t width) {
  return {.region = Region::of(matrix),
          .offset = begin * width,
          .row_bytes = (end - begin) * width,
          .rows = rows,
          .stride = cols * width};
}

void zero_rows(std::byte* matrix, std::size_t begin, std::size_t end, std::size_t row_bytes) {
  if (matrix != nullptr) std::memset(matrix + begin * row_bytes, 0, (end - begin) * row_bytes);
}

}  // namespace

FactorExchange::FactorExchange(runtime::Runtime& runtime, runtime::Compute& compute, runtime::Outbox& outbox,
                               runtime::Transport& transport, FactorExchangeOptions options)
    : runtime_(runtime), compute_(compute), outbox_(outbox), transport_(transport), options_(std::move(options)),
      own_(options_.partition.block_of(options_.self)) {}

FactorExchange::~FactorExchange() { *alive_ = false; }

std::optional<std::size_t> FactorExchange::rank_of(Member member) const {
  const auto found = std::find(options_.members.begin(), options_.members.end(), member);
  if (found == options_.members.end()) return std::nullopt;
  return static_cast<std::size_t>(found - options_.members.begin());
}

Layout FactorExchange::factor_layout(const Block& block, const FactorGradient& gradient) const {
  return Layout::pair(
      columns(gradient.outputs, gradient.rows, options_.rows, block.row_begin, block.row_end, width()),
      columns(gradient.inputs, gradient.rows, options_.cols, block.col_begin, block.col_end, width()));
}

FactorExchange::Set* FactorExchange::open(Iteration iteration) {
  for (Set& begun : sets_) {
    if (begun.iteration == iteration) return &begun;
  }
  // The newer one may still be multiplied, or leave. (Nothing is less than any number.)
  Set& set = sets_[sets_[0].iteration < sets_[1].iteration ? 0 : 1];
  const bool is_free = !set.iteration || set.multiplied;
  const bool is_next = sets_[0].iteration < iteration && sets_[1].iteration < iteration;
  if (!is_free || !is_next) return nullptr;
  const std::size_t workers = options_.members.size();
  set.iteration = iteration;
  set.batch.assign(workers, 0);
  set.bytes_announced_left.assign(workers, std::nullopt);
  set.bytes_left.assign(workers, std::nullopt);
  set.samples = 0;
  set.ranks_left = workers;
  set.multiplied = false;
  if (!options_.size_only && !set.outputs) {
    set.outputs = base::make_aligned(workers * options_.batch_max * own_->rows() * width());
    set.inputs = base::make_aligned(workers * options_.batch_max * own_->cols() * width());
    if (options_.partition.sends_products) {
      set.product = base::make_aligned(own_->rows() * own_->cols() * width());
      if (options_.bias) set.bias = base::make_aligned((own_->bias_end - own_->bias_begin) * width());
    }
  }
  return &set;
}

void FactorExchange::submit(Iteration iteration, const FactorGradient& gradient, SyncedFn on_synced) {
  POSEIDON_CHECK(!pending_, "layer ", options_.name, ": factors of iteration ", iteration, " while ", pending_->iteration,
                 " is not synchronised yet");
  POSEIDON_CHECK(gradient.rows <= options_.batch_max, "layer ", options_.name, ": ", gradient.rows, " rows of factors, ",
                 options_.batch_max, " were announced");
  const std::size_t result_bytes = (options_.rows * options_.cols + (options_.bias ? options_.rows : 0)) * width();
  pending_ = Pending{iteration, gradient, std::move(on_synced), result_bytes, 0, runtime_.now(), {}};
  // Results can only come after our factors have left, so the sinks are always in time.
  expect_products(iteration, gradient);
  const std::size_t blocks = options_.partition.blocks.size();
  for (std::size_t step = 1; step <= blocks; ++step) {
    // Each worker begins with another owner, so that they do not all send to the same one first.
    const std::size_t next = (static_cast<std::size_t>(index(options_.self)) + step) % blocks;
    const Block& block = options_.partition.blocks[next];
    if (&block != own_) send_factors(block, iteration, gradient);
  }
  if (own_ != nullptr) keep_own_factors(iteration, gradient);
}

void FactorExchange::send_factors(const Block& block, Iteration iteration, const FactorGradient& gradient) {
  PartHeader part;
  part.type = FrameType::kFactor;
  part.tensor = options_.weight;
  part.iteration = iteration;
  part.contributors = static_cast<std::uint32_t>(gradient.rows);
  part.samples = gradient.samples;
  outbox_.enqueue({.to = options_.members[static_cast<std::size_t>(index(block.owner))],
                   .priority = {iteration, options_.layer, runtime::SendClass::kFactor},
                   .part = part,
                   .begin = 0,
                   .source = factor_layout(block, gradient),
                   .hold = gradient.hold,
                   .on_sent = nullptr});
}

void FactorExchange::keep_own_factors(Iteration iteration, const FactorGradient& gradient) {
  Set* const set = open(iteration);
  POSEIDON_CHECK(set != nullptr, "layer ", options_.name, ": no buffers for iteration ", iteration);
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  set->batch[self] = gradient.rows;
  if (!options_.size_only) {
    const std::size_t u_bytes = gradient.rows * own_->rows() * width();
    std::vector<runtime::Slice> slices;
    factor_layout(*own_, gradient).slices(0, u_bytes, slices);
    gather(slices, set->outputs.get() + self * options_.batch_max * own_->rows() * width());
    slices.clear();
    factor_layout(*own_, gradient).slices(u_bytes, packed_bytes(*own_, gradient.rows), slices);
    gather(slices, set->inputs.get() + self * options_.batch_max * own_->cols() * width());
  }
  set->bytes_left[self] = 0;
  on_rank_complete(*set, self, gradient.samples);
}

void FactorExchange::expect_products(Iteration iteration, const FactorGradient& gradient) {
  if (!options_.partition.sends_products) return;
  for (const Block& block : options_.partition.blocks) {
    if (&block == own_) continue;
    const Member owner = options_.members[static_cast<std::size_t>(index(block.owner))];
    const auto on_part = [this](Member, const PartHeader& part) { arrived(part.bytes, part.samples); };
    const Layout matrix = Layout::strided({.region = Region::of(gradient.weight),
                                           .offset = (block.row_begin * options_.cols + block.col_begin) * width(),
                                           .row_bytes = block.cols() * width(),
                                           .rows = block.rows(),
                                           .stride = options_.cols * width()});
    pending_->sinks.push_back(
        transport_.expect(owner, {FrameType::kBlock, options_.weight, iteration}, Sink{0, matrix.bytes(), matrix, on_part}));
    if (!options_.bias || block.bias_begin == block.bias_end) continue;
    const std::size_t begin = block.bias_begin * width();
    const std::size_t end = block.bias_end * width();
    pending_->sinks.push_back(
        transport_.expect(owner, {FrameType::kBlock, *options_.bias, iteration},
                          Sink{begin, end, Layout::contiguous(Region::of(gradient.bias), begin, end - begin), on_part}));
  }
}

Result<Sink> FactorExchange::accept_factor(Member from, const PartHeader& part) {
  const auto corrupt = [&](const char* why) {
    return Error{ErrorCode::kCorruptFrame,
                 base::concat("member ", index(from), " sent bytes [", part.offset, ", ", part.offset + part.bytes,
                              ") of its factors of layer ", options_.name, ", iteration ", part.iteration, ": ", why)};
  };
  const std::optional<std::size_t> rank = rank_of(from);
  if (!rank || *rank == static_cast<std::size_t>(index(options_.self))) return corrupt("it is no peer of this epoch");
  if (own_ == nullptr) return corrupt("this member owns no block of the layer");
  if (part.contributors > options_.batch_max) return corrupt("it has more rows than were announced");
  Set* const set = open(part.iteration);
  if (set == nullptr || set->multiplied) return corrupt("its turn is over, or has not come");
  const std::size_t batch = part.contributors;
  const std::size_t bytes = packed_bytes(*own_, batch);
  std::optional<std::size_t>& announced_left = set->bytes_announced_left[*rank];
  const bool is_first = !announced_left;
  if (is_first) {
    announced_left = set->bytes_left[*rank] = bytes;
    set->batch[*rank] = batch;
  }
  if (set->batch[*rank] != batch || part.bytes > *announced_left || (part.bytes == 0 && !(is_first && bytes == 0))) {
    return corrupt("the parts do not fit together");
  }
  *announced_left -= part.bytes;
  const auto block_of_rank = [&](std::byte* matrix, std::size_t cols) {
    const std::size_t row_bytes = cols * width();
    const std::size_t matrix_bytes = options_.members.size() * options_.batch_max * row_bytes;
    return runtime::Strided{.region = {matrix, matrix_bytes, {}, 0},
                            .offset = *rank * options_.batch_max * row_bytes,
                            .row_bytes = batch * row_bytes,
                            .rows = 1,
                            .stride = batch * row_bytes};
  };
  return Sink{0, bytes,
              Layout::pair(block_of_rank(set->outputs.get(), own_->rows()), block_of_rank(set->inputs.get(), own_->cols())),
              [this, set, rank = *rank](Member, const PartHeader& arrived_part) {
                // Parts may be completed in another order than they began, so the last is known only here.
                std::size_t& left = *set->bytes_left[rank];
                left -= arrived_part.bytes;
                if (left == 0) on_rank_complete(*set, rank, arrived_part.samples);
              }};
}

void FactorExchange::on_rank_complete(Set& set, std::size_t rank, std::uint32_t samples) {
  POSEIDON_CHECK(set.ranks_left > 0, "rank ", rank, "'s factors of layer ", options_.name, " were complete before");
  set.samples += samples;
  --set.ranks_left;
  multiply_if_complete(set);
}

void FactorExchange::multiply_if_complete(Set& set) {
  // Ours are among them, so the worker has submitted, and the memory for the result is known: unless the job is over.
  if (set.ranks_left > 0 || !pending_) return;
  POSEIDON_CHECK(pending_->iteration == *set.iteration, "layer ", options_.name, ": factors of iteration ",
                 *set.iteration, " are complete without ours");
  const std::size_t workers = options_.members.size();
  const std::size_t m = own_->rows();
  const std::size_t n = own_->cols();
  for (std::size_t rank = 0; rank < workers; ++rank) {
    // A rank with fewer rows leaves a gap: rows of zeros add nothing.
    const std::size_t begin = rank * options_.batch_max + set.batch[rank];
    const std::size_t end = (rank + 1) * options_.batch_max;
    zero_rows(set.outputs.get(), begin, end, m * width());
    zero_rows(set.inputs.get(), begin, end, n * width());
  }
  runtime::ProductJob job;
  job.weight = options_.weight;
  job.dtype = options_.dtype;
  job.rows = workers * options_.batch_max;
  job.m = m;
  job.n = n;
  const bool has_bias = options_.bias && own_->bias_end > own_->bias_begin;
  if (has_bias) {
    job.bias_begin = own_->bias_begin - own_->row_begin;
    job.bias_end = own_->bias_end - own_->row_begin;
  }
  if (!options_.size_only) {
    std::byte* const weight =
        pending_->gradient.weight.data + (own_->row_begin * options_.cols + own_->col_begin) * width();
    std::byte* const bias = has_bias ? pending_->gradient.bias.data + own_->bias_begin * width() : nullptr;
    job.u = set.outputs.get();
    job.v = set.inputs.get();
    if (options_.partition.sends_products) {
      // Kept apart from the worker's memory, which it may change while the block is still on its way to others.
      job.out = set.product.get();
      job.out_stride = n;
      job.bias = has_bias ? set.bias.get() : nullptr;
      job.copy = weight;
      job.copy_stride = options_.cols;
      job.bias_copy = bias;
    } else {
      job.out = weight;
      job.out_stride = options_.cols;
      job.bias = bias;
    }
  }
  compute_.product(job, [this, alive = alive_, &set](const std::optional<Error>& error) {
    if (!*alive) return;
    if (error) return fail(*error);
    on_product(set);
  });
}

void FactorExchange::on_product(Set& set) {
  set.multiplied = true;
  if (!pending_) return;  // the job ended meanwhile
  if (options_.partition.sends_products) send_product(set);
  const std::size_t bias_numbers = options_.bias ? own_->bias_end - own_->bias_begin : 0;
  arrived((own_->rows() * own_->cols() + bias_numbers) * width(), set.samples);
}

void FactorExchange::send_product(const Set& set) {
  const std::size_t workers = options_.members.size();
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  PartHeader part;
  part.type = FrameType::kBlock;
  part.iteration = *set.iteration;
  part.contributors = static_cast<std::uint32_t>(workers);
  part.samples = static_cast<std::uint32_t>(set.samples);
  const auto send = [&](Member to, TensorId tensor, std::size_t begin, const std::byte* data, std::size_t bytes) {
    part.tensor = tensor;
    const Region region{const_cast<std::byte*>(data), bytes, {}, 0};
    outbox_.enqueue({.to = to,
                     .priority = {*set.iteration, options_.layer, runtime::SendClass::kSum},
                     .part = part,
                     .begin = begin,
                     .source = Layout::contiguous(region, 0, bytes),
                     .hold = nullptr,
                     .on_sent = nullptr});
  };
  for (std::size_t step = 1; step < workers; ++step) {
    const Member to = options_.members[(self + step) % workers];
    send(to, options_.weight, 0, set.product.get(), own_->rows() * own_->cols() * width());
    if (options_.bias && own_->bias_end > own_->bias_begin) {
      send(to, *options_.bias, own_->bias_begin * width(), set.bias.get(), (own_->bias_end - own_->bias_begin) * width());
    }
  }
}

void FactorExchange::arrived(std::size_t bytes, std::uint64_t samples) {
  POSEIDON_CHECK(pending_ && bytes <= pending_->bytes_left, "layer ", options_.name, ": more of the sum came than there is");
  pending_->bytes_left -= bytes;
  pending_->samples = samples;
  if (pending_->bytes_left > 0) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
  done.on_synced({.error = std::nullopt,
                  .iteration = done.iteration,
                  .contributors = static_cast<std::uint32_t>(options_.members.size()),
                  .samples = done.samples,
                  .ready = {}});
}

void FactorExchange::fail(const Error& error) {
  if (!pending_) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
  for (const runtime::SinkId sink : done.sinks) transport_.revoke(sink);
  done.on_synced({.error = error, .iteration = done.iteration, .contributors = 0, .samples = 0, .ready = {}});
}

std::optional<std::string> FactorExchange::overdue(runtime::Duration age) const {
  if (!pending_ || waited() < age) return std::nullopt;
  std::vector<std::string> missing;
  const auto name = [&](Rank node) { return plan::node_name(node, static_cast<int>(options_.members.size()), options_.leaders); };
  const Set& set = sets_[sets_[1].iteration == pending_->iteration ? 1 : 0];
  if (own_ != nullptr && set.iteration == pending_->iteration && set.ranks_left > 0) {
    for (std::size_t rank = 0; rank < set.bytes_left.size(); ++rank) {
      if (set.bytes_left[rank] != std::size_t{0}) missing.push_back(base::concat("the factors of ", name(Rank{static_cast<std::int32_t>(rank)})));
    }
  }
  if (missing.empty() && options_.partition.sends_products) missing.push_back("the products of their owners");
  if (missing.empty()) missing.push_back("its own product");
  return base::concat(name(options_.self), " waits for ", base::join_words(missing), " of layer ", options_.name,
                      ", iteration ", pending_->iteration, ", since ",
                      base::readable_seconds(std::chrono::duration<double>(waited()).count()));
}

}  // namespace poseidon::factor
