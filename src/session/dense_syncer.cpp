#include "session/dense_syncer.h"

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
    : runtime_(runtime), transport_(transport), outbox_(outbox), store_(store), options_(std::move(options)) {}

void DenseSyncer::submit(Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced) {
  POSEIDON_CHECK(!pending_, options_.name, ": a gradient of iteration ", iteration, " while ", pending_->iteration,
                 " is not synchronised yet");
  POSEIDON_CHECK(gradient.gradient.bytes == options_.bytes, options_.name, ": a gradient of ", gradient.gradient.bytes,
                 " bytes, the tensor has ", options_.bytes);
  pending_ = Pending{iteration, std::move(on_synced), 0, {}, 0, 0, runtime_.now(), {}};
  pending_->bytes_left_of.resize(options_.members.size(), 0);
  for (const plan::Chunk& chunk : options_.chunks) {
    pending_->bytes_left += chunk.end - chunk.begin;
    pending_->bytes_left_of[static_cast<std::size_t>(index(chunk.server))] += chunk.end - chunk.begin;
  }
  // All sinks before the first push. Pushes begin with the servers after this rank, so that the workers do not all call on
  // the same server first; this member's own shard, which needs no link, comes last.
  for (const plan::Chunk& chunk : options_.chunks) {
    if (chunk.server == options_.self) continue;
    const Member server = options_.members[static_cast<std::size_t>(index(chunk.server))];
    const std::size_t chunk_bytes = chunk.end - chunk.begin;
    pending_->sinks.push_back(transport_.expect(
        server, {FrameType::kSum, options_.tensor, iteration},
        {chunk.begin, chunk.end, Layout::contiguous(Region::of(gradient.gradient), chunk.begin, chunk_bytes),
         [this, rank = chunk.server, chunk_bytes](Member, const PartHeader& part) {
           const bool absent = (part.flags & wire::kAbsent) != 0;
           arrived(rank, absent ? chunk_bytes : part.bytes, part.contributors, part.samples);
         }}));
  }
  const std::size_t nodes = options_.members.size();
  for (std::size_t step = 1; step <= nodes; ++step) {
    const Rank server{static_cast<std::int32_t>((static_cast<std::size_t>(index(options_.self)) + step) % nodes)};
    for (std::size_t c = 0; c < options_.chunks.size(); ++c) {
      const plan::Chunk& chunk = options_.chunks[c];
      if (chunk.server != server) continue;
      if (server != options_.self) {
        push(chunk, iteration, gradient, present);
        continue;
      }
      store_.push_local(options_.tensor, c, iteration,
                        {gradient.gradient.data, present, gradient.samples,
                         [this](const store::PieceSum& piece) {
                           arrived(options_.self, piece.end - piece.begin, piece.contributors, piece.samples);
                         },
                         gradient.contributors});
    }
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

void DenseSyncer::arrived(Rank server, std::size_t bytes, std::uint32_t contributors, std::uint64_t samples) {
  POSEIDON_CHECK(pending_ && bytes <= pending_->bytes_left, options_.name, ": more of the sum came than there is");
  pending_->bytes_left -= bytes;
  pending_->bytes_left_of[static_cast<std::size_t>(index(server))] -= bytes;
  pending_->contributors = contributors;
  pending_->samples = samples;
  if (pending_->bytes_left > 0) return;
  const Pending done = std::move(*pending_);
  pending_.reset();
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
  for (const runtime::SinkId sink : done.sinks) transport_.revoke(sink);
  done.on_synced({.error = error, .iteration = done.iteration, .contributors = 0, .samples = 0, .ready = {}});
}

std::string DenseSyncer::name_of(Rank node) const { return plan::node_name(node, options_.workers, options_.leaders); }

std::optional<std::string> DenseSyncer::overdue(runtime::Duration age) const {
  if (waited() < age || !pending_) return std::nullopt;
  std::vector<std::string> servers;
  for (std::size_t node = 0; node < pending_->bytes_left_of.size(); ++node) {
    if (pending_->bytes_left_of[node] > 0) servers.push_back(name_of(Rank{static_cast<std::int32_t>(node)}));
  }
  return base::concat(name_of(options_.self), " waits for the sum of ", options_.name, ", iteration ",
                      pending_->iteration, ", from the server shard of ", base::join_words(servers), " since ",
                      base::readable_seconds(std::chrono::duration<double>(waited()).count()));
}

}  // namespace poseidon::session
