#include "session/dense_syncer.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/text.h"
#include "plan/hosts.h"

namespace poseidon::session {

using runtime::Layout;
using runtime::Region;
using wire::FrameType;
using wire::PartHeader;

DenseSyncer::DenseSyncer(runtime::Runtime& runtime, runtime::Transport& transport, runtime::Outbox& outbox,
                         store::BspStore& store, DenseSyncerOptions options)
    : runtime_(runtime), transport_(transport), outbox_(outbox), store_(store), options_(std::move(options)),
      order_(options_.chunks.size()) {
  // Pushes begin with the servers after this rank, so that the workers do not all call on the same server first; this member's own
  // shard, which needs no link, comes last.
  std::iota(order_.begin(), order_.end(), 0);
  const int nodes = static_cast<int>(options_.members.size());
  const auto steps = [&](std::uint32_t c) { return (index(options_.chunks[c].server) - index(options_.self) - 1 + nodes) % nodes; };
  std::stable_sort(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) { return steps(a) < steps(b); });
}

void DenseSyncer::submit(Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced) {
  POSEIDON_CHECK(!pending_, options_.name, ": a gradient of iteration ", iteration, " while ", pending_->iteration,
                 " is not synchronised yet");
  POSEIDON_CHECK(gradient.gradient.bytes == options_.bytes, options_.name, ": a gradient of ", gradient.gradient.bytes,
                 " bytes, the tensor has ", options_.bytes);
  pending_ = Pending{iteration, std::move(on_synced), 0, {}, 0, 0, runtime_.now(), runtime::SinkId{0}};
  pending_->bytes_to_come.reserve(options_.chunks.size());
  for (const plan::Chunk& chunk : options_.chunks) {
    pending_->bytes_to_come.push_back(chunk.end - chunk.begin);
    pending_->bytes_left += chunk.end - chunk.begin;
  }
  // Before the first push. One sink for the sums of all servers: with a thousand of them one for each would be most of the memory.
  pending_->sink = transport_.expect(runtime::kAnybody, {FrameType::kSum, options_.tensor, iteration},
                                     {.begin = 0,
                                      .end = options_.bytes,
                                      .layout = Layout::contiguous(Region::of(gradient.gradient), 0, options_.bytes),
                                      .on_part =
                                          [this](Member, const PartHeader& part) {
                                            std::size_t bytes = part.bytes;
                                            if ((part.flags & wire::kAbsent) != 0) {
                                              const plan::Chunk& chunk = options_.chunks[chunk_at(part.offset)];
                                              bytes = chunk.end - chunk.begin;
                                            }
                                            arrived(bytes, part.contributors, part.samples);
                                          },
                                      .admit = [this](Member from, const PartHeader& part) { return admit(from, part); }});
  for (const std::uint32_t c : order_) {
    const plan::Chunk& chunk = options_.chunks[c];
    if (chunk.server != options_.self) {
      push(chunk, iteration, gradient, present);
      continue;
    }
    store_.push_local(options_.tensor, c, iteration,
                      {gradient.gradient.data, present, gradient.samples, [this, c = std::size_t{c}](const store::PieceSum& piece) {
                         if (!pending_) return;  // the job is over
                         pending_->bytes_to_come[c] -= piece.end - piece.begin;
                         arrived(piece.end - piece.begin, piece.contributors, piece.samples);
                       },
                       gradient.contributors});
  }
}

void DenseSyncer::push(const plan::Chunk& chunk, Iteration iteration, const DenseGradient& gradient, bool present) {
  PartHeader part;
  part.type = FrameType::kPush;
  part.tensor = options_.tensor;
  part.iteration = iteration;
  part.contributors = gradient.contributors;
  part.samples = gradient.samples;
  if (!present) part.flags = wire::kAbsent;
  outbox_.enqueue({.to = options_.members[static_cast<std::size_t>(index(chunk.server))],
                   .priority = {iteration, options_.layer, runtime::SendClass::kPush},
                   .part = part,
                   .begin = chunk.begin,
                   .source = Layout::contiguous(Region::of(gradient.gradient), chunk.begin, present ? chunk.end - chunk.begin : 0),
                   .hold = nullptr,
                   .on_sent = nullptr});
}

std::size_t DenseSyncer::chunk_at(std::uint64_t offset) const {
  const auto after = std::upper_bound(options_.chunks.begin(), options_.chunks.end(), offset,
                                      [](std::uint64_t at, const plan::Chunk& chunk) { return at < chunk.begin; });
  if (after == options_.chunks.begin() || offset >= std::prev(after)->end) return options_.chunks.size();
  return static_cast<std::size_t>(std::prev(after) - options_.chunks.begin());
}

bool DenseSyncer::admit(Member from, const PartHeader& part) {
  const std::size_t c = chunk_at(part.offset);
  if (!pending_ || c == options_.chunks.size()) return false;
  const plan::Chunk& chunk = options_.chunks[c];
  if (chunk.server == options_.self || options_.members[static_cast<std::size_t>(index(chunk.server))] != from) return false;
  const bool absent = (part.flags & wire::kAbsent) != 0;
  if (absent && (part.offset != chunk.begin || part.bytes != 0)) return false;
  const std::size_t bytes = absent ? chunk.end - chunk.begin : part.bytes;
  if (part.offset + part.bytes > chunk.end || bytes > pending_->bytes_to_come[c]) return false;
  pending_->bytes_to_come[c] -= bytes;
  return true;
}

void DenseSyncer::arrived(std::size_t bytes, std::uint32_t contributors, std::uint64_t samples) {
  POSEIDON_CHECK(pending_ && bytes <= pending_->bytes_left, options_.name, ": more of the sum came than there is");
  pending_->bytes_left -= bytes;
  pending_->contributors = contributors;
  pending_->samples = samples;
  if (pending_->bytes_left > 0) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
  transport_.revoke(done.sink);
  done.on_synced({.error = std::nullopt,
                  .iteration = done.iteration,
                  .contributors = done.contributors,
                  .samples = done.samples,
                  .ready = {}});
}

void DenseSyncer::fail(const Error& error) {
  if (!pending_) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
  transport_.revoke(done.sink);
  done.on_synced({.error = error, .iteration = done.iteration, .contributors = 0, .samples = 0, .ready = {}});
}

std::string DenseSyncer::name_of(Rank node) const { return plan::node_name(node, options_.workers, options_.leaders); }

std::optional<std::string> DenseSyncer::overdue(runtime::Duration age) const {
  if (waited() < age || !pending_) return std::nullopt;
  std::set<Rank> late;
  for (std::size_t c = 0; c < options_.chunks.size(); ++c) {
    if (pending_->bytes_to_come[c] > 0) late.insert(options_.chunks[c].server);
  }
  std::vector<std::string> servers;
  for (const Rank server : late) servers.push_back(name_of(server));
  return base::concat(name_of(options_.self), " waits for the sum of ", options_.name, ", iteration ",
                      pending_->iteration, ", from the server shard of ", base::join_words(servers), " since ",
                      base::readable_seconds(std::chrono::duration<double>(waited()).count()));
}

}  // namespace poseidon::session
