#include "host/host_tensor.h"

#include <cstring>

#include "base/check.h"
#include "host/shares.h"

namespace poseidon::host {
namespace {

// What one member's share is made of; kept alive by its pieces.
struct Sum {
  std::vector<std::shared_ptr<std::byte>> addends;
  std::vector<std::shared_ptr<std::byte>> targets;  // each receives the sum
};

}  // namespace

HostTensor::HostTensor(Group& group, ExchangeOptions exchange, HostTensorOptions options)
    : Exchange(group, std::move(exchange)), options_of_tensor_(options) {}

void HostTensor::submit(Iteration iteration, const DenseGradient& gradient, bool present, SyncedFn on_synced) {
  POSEIDON_CHECK(gradient.gradient.bytes == options_of_tensor_.bytes, options_.name, ": a gradient of ", gradient.gradient.bytes,
                 " bytes, the tensor has ", options_of_tensor_.bytes);
  gradient_ = gradient.gradient;
  begin(iteration, present, present ? gradient.samples : 0, std::move(on_synced));
}

// Without a gradient a member of a host among others gives nothing, and copies the result from the leader.
std::array<std::size_t, Exchange::kPlacesMax> HostTensor::offered(std::size_t place, bool present) const {
  return {present || group_.alone() || place == 0 ? options_of_tensor_.bytes : 0, 0, 0};
}

bool HostTensor::uses(std::size_t, std::size_t) const { return true; }

void HostTensor::prepare(Part& own, bool present, std::function<void(const std::array<wire::HostPlace, kPlacesMax>&)> then) {
  if (offered(group_.self(), present)[0] == 0) return then({});
  const Result<Group::Offer> offer = group_.offer(gradient_.data, gradient_.bytes, slot_);
  if (!offer) return error(offer.error());
  // Borrowed from the caller, or kept by slot_.
  own.memory[0] = std::shared_ptr<std::byte>(std::shared_ptr<void>(), offer->data);
  const auto ready = [then = std::move(then), place = offer->place] { then({place, {}, {}}); };
  if (!present) return ready();
  // Before all sums of this layer: others wait for it.
  group_.copy({0, options_.layer, runtime::SendClass::kPush}, gradient_.data, offer->data, gradient_.bytes, ready);
}

bool HostTensor::has_share(std::size_t place) const {
  return share_of_bytes(options_of_tensor_.bytes, group_.size(), place, index(options_.tensor)).size() > 0;
}

void HostTensor::combine(const std::shared_ptr<Round>& round, std::function<void()> then) {
  const auto sum = std::make_shared<Sum>();
  for (const Part& part : round->parts) {
    if (part.present) sum->addends.push_back(part.memory[0]);
    if (group_.alone()) sum->targets.push_back(part.memory[0]);
  }
  if (!group_.alone()) sum->targets.push_back(round->parts[0].memory[0]);
  const Range share = share_of_bytes(options_of_tensor_.bytes, group_.size(), group_.self(), index(options_.tensor));
  group_.work().add(
      {.priority = priority(*round),
       .count = share.size(),
       .per_piece = wire::kPieceBytes,
       .piece =
           [sum, &compute = group_.compute(), dtype = options_of_tensor_.dtype, from = share.begin](
               std::size_t begin, std::size_t end, std::function<void()> next) {
             const std::size_t at = from + begin;
             const std::size_t bytes = end - begin;
             runtime::SumJob job;
             job.dtype = dtype;
             job.elements = bytes / bytes_of(dtype);
             for (const auto& addend : sum->addends) job.addends.push_back(addend.get() + at);
             job.out = sum->targets[0].get() + at;
             if (sum->targets.size() > 1) job.copy = sum->targets[1].get() + at;
             compute.sum(std::move(job), [sum, at, bytes, next = std::move(next)](const std::optional<Error>& failure) {
               POSEIDON_CHECK(!failure, "a sum cannot fail: ", failure->message);
               for (std::size_t t = 2; t < sum->targets.size(); ++t) {
                 std::memcpy(sum->targets[t].get() + at, sum->targets[0].get() + at, bytes);
               }
               next();
             });
           },
       .done = std::move(then)});
}

void HostTensor::to_network(const std::shared_ptr<Round>& round, bool present, SyncedFn on_synced) {
  const TensorView memory{round->parts[0].memory[0].get(), options_of_tensor_.bytes, options_of_tensor_.dtype, gradient_.device};
  if (!present) return options_.network->submit_absent(options_.tensor, round->iteration, memory, std::move(on_synced));
  options_.network->submit(
      options_.tensor, round->iteration,
      {.gradient = memory, .ready = {}, .samples = samples_of(*round), .contributors = present_of(*round)}, std::move(on_synced));
}

void HostTensor::fetch(const std::shared_ptr<Round>& round, std::function<void()> then) {
  group_.copy(priority(*round), round->parts[result_place()].memory[0].get(), gradient_.data, gradient_.bytes, std::move(then));
}

}  // namespace poseidon::host
