#include "store/bsp_store.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::store {

using runtime::Sink;
using wire::PartHeader;

namespace {

// What the member owns, in the order of the forward pass: by layers, whether they count as priorities or not.
std::vector<GateChunk> gate_chunks(const BspStoreOptions& options) {
  std::vector<GateChunk> list;
  for (std::size_t l = 0; l < options.model->layers.size(); ++l) {
    for (const TensorId tensor : options.model->layers[l].tensors) {
      for (const plan::Chunk& range : (*options.chunks)[index(tensor)]) {
        if (range.server != options.self) continue;
        list.push_back({tensor, range.begin, range.end - range.begin, static_cast<std::uint32_t>(l)});
      }
    }
  }
  return list;
}

}  // namespace

BspStore::BspStore(runtime::Runtime& runtime, runtime::Compute& compute, runtime::Outbox& outbox, BspStoreOptions options)
    : runtime_(runtime), compute_(compute), outbox_(outbox), options_(std::move(options)),
      staging_({.bytes_max = options_.staging_bytes_max}),
      gate_({.staging_bytes_max = options_.staging_bytes_max,
             .crossing_bytes_max = options_.crossing_bytes_max,
             .others = options_.members.size() - (options_.serves_only() ? 0 : 1)},
            gate_chunks(options_), [this](const wire::GateNews& news) { tell(news); }),
      owned_(options_.chunks->size()) {
  for (std::size_t t = 0; t < options_.chunks->size(); ++t) {
    for (const plan::Chunk& range : (*options_.chunks)[t]) {
      if (range.server != options_.self) continue;
      auto chunk = std::make_unique<OwnedChunk>();
      chunk->tensor = TensorId{static_cast<std::uint32_t>(t)};
      chunk->range = range;
      owned_[t].push_back(std::move(chunk));
    }
  }
  for (std::size_t place = 0; place < gate_.chunks(); ++place) {
    find(gate_.chunk(place).tensor, gate_.chunk(place).offset)->place = place;
  }
}

BspStore::~BspStore() { *alive_ = false; }

std::size_t BspStore::pieces_of(const OwnedChunk& chunk) const {
  return (chunk.range.end - chunk.range.begin + wire::kPieceBytes - 1) / wire::kPieceBytes;
}

std::size_t BspStore::piece_begin(const OwnedChunk& chunk, std::size_t piece) const {
  return chunk.range.begin + piece * wire::kPieceBytes;
}

std::size_t BspStore::piece_end(const OwnedChunk& chunk, std::size_t piece) const {
  return std::min(chunk.range.end, piece_begin(chunk, piece) + wire::kPieceBytes);
}

BspStore::OwnedChunk* BspStore::find(TensorId tensor, std::uint64_t offset) {
  if (index(tensor) >= owned_.size()) return nullptr;
  auto& chunks = owned_[index(tensor)];
  const auto after = std::upper_bound(chunks.begin(), chunks.end(), offset,
                                      [](std::uint64_t at, const auto& chunk) { return at < chunk->range.begin; });
  if (after == chunks.begin()) return nullptr;
  OwnedChunk* const chunk = std::prev(after)->get();
  return offset < chunk->range.end ? chunk : nullptr;
}

BspStore::Slot* BspStore::slot(OwnedChunk& chunk, Iteration iteration) {
  Slot& slot = chunk.slots[iteration % 2];
  if (slot.iteration == iteration) return slot.finished ? nullptr : &slot;
  if (slot.iteration && !slot.finished) return nullptr;
  if (slot.iteration && *slot.iteration > iteration) return nullptr;
  const Slot& other = chunk.slots[(iteration + 1) % 2];
  if (other.iteration && !other.finished) return nullptr;
  const std::size_t workers = options_.members.size();
  slot.iteration = iteration;
  slot.finished = false;
  slot.opened = runtime_.now();
  slot.pieces_left = pieces_of(chunk);
  slot.local.reset();
  gate_.opened(chunk.place, iteration);
  slot.pieces.resize(slot.pieces_left);
  for (Piece& piece : slot.pieces) {
    if (!options_.size_only) piece.staged.assign(workers, nullptr);
    piece.arrived.assign(workers, false);
    piece.present.assign(workers, false);
    piece.arrivals = 0;
    piece.samples = 0;
  }
  return &slot;
}

std::optional<std::size_t> BspStore::rank_of(Member member) const {
  // Where members and ranks are the same numbers, which they are until somebody has left, nobody is looked for.
  const std::size_t guess = index(member);
  if (guess < options_.members.size() && options_.members[guess] == member) return guess;
  const auto found = std::find(options_.members.begin(), options_.members.end(), member);
  if (found == options_.members.end()) return std::nullopt;
  return static_cast<std::size_t>(found - options_.members.begin());
}

void BspStore::push_local(TensorId tensor, std::size_t chunk_index, Iteration iteration, LocalPush push) {
  const plan::Chunk& range = (*options_.chunks)[index(tensor)][chunk_index];
  OwnedChunk* const chunk = find(tensor, range.begin);
  POSEIDON_CHECK(chunk != nullptr, "chunk ", chunk_index, " of tensor ", index(tensor), " is not owned here");
  Slot* const open = slot(*chunk, iteration);
  POSEIDON_CHECK(open != nullptr && !open->local, "tensor ", index(tensor), " was pushed twice for iteration ", iteration,
                 ", or before the sum of an older one had come");
  const bool present = push.present;
  const std::uint32_t samples = push.samples;
  open->local = std::move(push);
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  for (std::size_t piece = 0; piece < open->pieces.size(); ++piece) {
    arrive(*chunk, *open, piece, self, nullptr, present, samples);
  }
}

Result<Sink> BspStore::accept_push(Member from, const PartHeader& part) {
  const auto corrupt = [&](const char* why) {
    return Error{ErrorCode::kCorruptFrame,
                 base::concat("member ", index(from), " pushed ", part.bytes, " bytes at ", part.offset, " of tensor ",
                              index(part.tensor), ", iteration ", part.iteration, ": ", why)};
  };
  const std::optional<std::size_t> rank = rank_of(from);
  if (!rank) return corrupt("it is no worker of this epoch");
  OwnedChunk* const chunk = find(part.tensor, part.offset);
  if (chunk == nullptr) return corrupt("this member does not own that range");
  Slot* const open = slot(*chunk, part.iteration);
  if (open == nullptr) return corrupt("its turn is over, or has not come");

  if ((part.flags & wire::kAbsent) != 0) {
    if (part.offset != chunk->range.begin) return corrupt("an absence must name the start of a chunk");
    if (std::any_of(open->pieces.begin(), open->pieces.end(), [&](const Piece& p) { return p.arrived[*rank]; })) {
      return corrupt("it came twice");
    }
    return Sink{part.offset, part.offset, {}, [this, chunk, open, rank = *rank](Member, const PartHeader&) {
                  gate_.absent(chunk->place);
                  for (std::size_t piece = 0; piece < open->pieces.size(); ++piece) {
                    arrive(*chunk, *open, piece, rank, nullptr, false, 0);
                  }
                }};
  }
  const std::size_t piece = (part.offset - chunk->range.begin) / wire::kPieceBytes;
  if (part.offset != piece_begin(*chunk, piece) || part.offset + part.bytes != piece_end(*chunk, piece)) {
    return corrupt("that is not one of the chunk's pieces");
  }
  Piece& state = open->pieces[piece];
  if (state.arrived[*rank] || (!options_.size_only && state.staged[*rank] != nullptr)) return corrupt("it came twice");
  std::byte* staged = nullptr;
  if (!options_.size_only) staged = state.staged[*rank] = staging_.acquire(part.bytes);
  gate_.staged(chunk->place, part.bytes);
  return Sink{part.offset, part.offset + part.bytes, runtime::Layout::contiguous({staged, part.bytes, {}, 0}, 0, part.bytes),
              // So little that a std::function needs no memory for it: there is one for each piece that comes.
              [this, chunk](Member member, const PartHeader& arrived) { arrive_push(*chunk, member, arrived); }};
}

// The slot is still that of the iteration: it cannot be closed before this piece has come.
void BspStore::arrive_push(OwnedChunk& chunk, Member from, const PartHeader& part) {
  Slot& slot = chunk.slots[part.iteration % 2];
  const std::size_t piece = (part.offset - chunk.range.begin) / wire::kPieceBytes;
  const std::size_t rank = *rank_of(from);
  std::byte* const staged = options_.size_only ? nullptr : slot.pieces[piece].staged[rank];
  arrive(chunk, slot, piece, rank, staged, true, part.samples);
}

void BspStore::arrive(OwnedChunk& chunk, Slot& slot, std::size_t piece, std::size_t rank, std::byte* staged, bool present,
                      std::uint32_t samples) {
  Piece& state = slot.pieces[piece];
  POSEIDON_CHECK(!state.arrived[rank], "rank ", rank, "'s piece ", piece, " of tensor ", index(chunk.tensor), " came twice");
  if (!options_.size_only) state.staged[rank] = staged;
  state.arrived[rank] = true;
  state.present[rank] = present;
  if (present) state.samples += samples;
  if (++state.arrivals == options_.members.size()) sum(chunk, slot, piece);
}

void BspStore::sum(OwnedChunk& chunk, Slot& slot, std::size_t piece) {
  Piece& state = slot.pieces[piece];
  const std::size_t begin = piece_begin(chunk, piece);
  const std::size_t bytes = piece_end(chunk, piece) - begin;
  const std::size_t chunk_bytes = chunk.range.end - chunk.range.begin;
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  runtime::SumJob job;
  job.dtype = options_.model->tensors[index(chunk.tensor)].dtype;
  job.elements = bytes / bytes_of(job.dtype);
  for (std::size_t rank = 0; rank < state.present.size(); ++rank) {
    if (!state.present[rank]) continue;
    const bool is_local = rank == self && !options_.size_only;
    std::byte* const staged = options_.size_only ? nullptr : state.staged[rank];
    job.addends.push_back(is_local ? slot.local->tensor + begin : staged);
  }
  const std::uint32_t contributors = static_cast<std::uint32_t>(job.addends.size());
  if (contributors == 0) return on_summed(chunk, slot, piece, 0);
  if (!options_.size_only) {
    if (!slot.sum) slot.sum = base::make_aligned(chunk_bytes);
    job.out = slot.sum.get() + (begin - chunk.range.begin);
    if (slot.local) job.copy = slot.local->tensor + begin;
  }
  compute_.sum(std::move(job), [this, alive = alive_, &chunk, &slot, piece, contributors](const std::optional<Error>& error) {
    if (!*alive) return;
    POSEIDON_CHECK(!error, "a sum cannot fail: ", error->message);
    on_summed(chunk, slot, piece, contributors);
  });
}

void BspStore::on_summed(OwnedChunk& chunk, Slot& slot, std::size_t piece, std::uint32_t contributors) {
  Piece& state = slot.pieces[piece];
  const std::size_t begin = piece_begin(chunk, piece);
  const std::size_t end = piece_end(chunk, piece);
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  const bool is_own_there = self < state.present.size() && state.present[self];
  const auto others = std::count(state.present.begin(), state.present.end(), true) - (is_own_there ? 1 : 0);
  const std::size_t staged_bytes = static_cast<std::size_t>(others) * (end - begin);
  for (std::byte*& staged : state.staged) {
    if (staged != nullptr) staging_.release(std::exchange(staged, nullptr));
  }
  slot.finished = --slot.pieces_left == 0;
  gate_.summed(chunk.place, staged_bytes, slot.finished);
  PartHeader part;
  part.type = wire::FrameType::kSum;
  part.tensor = chunk.tensor;
  part.iteration = *slot.iteration;
  part.contributors = contributors;
  part.samples = static_cast<std::uint32_t>(state.samples);
  if (contributors > 0) {
    send_sum(chunk, slot, part, begin, end);
  } else if (slot.finished) {
    // Nobody has a gradient of the tensor at all: one word for the whole chunk.
    part.flags = wire::kAbsent;
    send_sum(chunk, slot, part, chunk.range.begin, chunk.range.begin);
  }
  // Last, because the callback may bring the next iteration's push.
  if (!slot.local) return;
  const PieceSumFn on_sum = slot.local->on_sum;
  on_sum({begin, end, contributors, state.samples});
}

void BspStore::send_sum(const OwnedChunk& chunk, const Slot& slot, PartHeader part, std::size_t begin, std::size_t end) {
  const std::size_t workers = options_.members.size();
  const std::size_t self = static_cast<std::size_t>(index(options_.self));
  const runtime::Region region{slot.sum.get(), chunk.range.end - chunk.range.begin, {}, 0};
  for (std::size_t step = 1; step <= workers; ++step) {
    // Each server begins with its own successor, so that they do not all send to the same worker first.
    const std::size_t rank = (self + step) % workers;
    if (rank == self) continue;
    outbox_.enqueue({.to = options_.members[rank],
                     .priority = {*slot.iteration, options_.layer_of[index(chunk.tensor)], runtime::SendClass::kSum},
                     .part = part,
                     .begin = begin,
                     .source = runtime::Layout::contiguous(region, begin - chunk.range.begin, end - begin),
                     .hold = nullptr,
                     .on_sent = nullptr});
  }
}

void BspStore::tell(const wire::GateNews& news) {
  if (news.open) {
    gate_closed_.reset();
  } else if (!gate_closed_) {
    gate_closed_ = runtime_.now();
  }
  if (options_.tell) options_.tell(news);
}

std::vector<std::string> BspStore::missing(const Slot& slot) const {
  std::vector<std::string> ranks;
  for (std::size_t rank = 0; rank < options_.members.size(); ++rank) {
    const bool lacks = std::any_of(slot.pieces.begin(), slot.pieces.end(), [&](const Piece& p) { return !p.arrived[rank]; });
    if (lacks) ranks.push_back(base::concat("rank ", rank));
  }
  return ranks;
}

std::optional<std::string> BspStore::overdue_at_the_gate(runtime::Duration age) const {
  if (!gate_closed_ || runtime_.now() - *gate_closed_ < age) return std::nullopt;
  const std::size_t lowest = gate_.lowest_unfinished();
  const TensorId tensor = gate_.chunk(lowest).tensor;
  std::string ranks = "all ranks";
  for (const auto& chunk : owned_[index(tensor)]) {
    for (const Slot& slot : chunk->slots) {
      if (chunk->place != lowest || !slot.iteration || slot.finished) continue;
      ranks = base::join_words(missing(slot));
    }
  }
  return base::concat("the server shard of ", plan::node_name(options_.self, static_cast<int>(options_.members.size())), " has staged ",
                      base::readable_bytes(static_cast<double>(gate_.bytes_staged())), ", near its cap of ",
                      base::readable_bytes(static_cast<double>(options_.staging_bytes_max)),
                      ", and keeps pushes waiting; first of all it needs ", options_.model->tensors[index(tensor)].name,
                      " of iteration ", gate_.iteration_of(lowest), " from ", ranks, ", since ",
                      base::readable_seconds(std::chrono::duration<double>(runtime_.now() - *gate_closed_).count()));
}

std::vector<std::string> BspStore::overdue(runtime::Duration age, std::size_t count) const {
  std::vector<std::string> sentences;
  const runtime::Time now = runtime_.now();
  if (const auto sentence = overdue_at_the_gate(age); sentence && count > 0) sentences.push_back(*sentence);
  for (const auto& chunks : owned_) {
    for (const auto& chunk : chunks) {
      for (const Slot& slot : chunk->slots) {
        if (!slot.iteration || slot.finished || now - slot.opened < age || sentences.size() >= count) continue;
        const std::vector<std::string> ranks = missing(slot);
        if (ranks.empty()) continue;
        sentences.push_back(base::concat("the server shard of ", plan::node_name(options_.self, static_cast<int>(options_.members.size())), " waits for ",
                                         base::join_words(ranks), " to push ",
                                         options_.model->tensors[index(chunk->tensor)].name, " of iteration ", *slot.iteration,
                                         " since ", base::readable_seconds(std::chrono::duration<double>(now - slot.opened).count())));
      }
    }
  }
  return sentences;
}

}  // namespace poseidon::store
