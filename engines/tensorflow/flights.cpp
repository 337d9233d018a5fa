#include "engines/tensorflow/flights.h"

#include <utility>

#include "engines/tensorflow/link.h"

namespace poseidon::tensorflow {

Flights& Flights::instance() {
  static Flights flights;
  return flights;
}

std::int64_t Flights::start(std::uint32_t tensor, ::tensorflow::Tensor gradient, bool present) {
  void* const memory = gradient.data();
  std::int64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    ticket = ++last_ticket_;
    flights_[ticket].sum = std::move(gradient);
  }
  Link::instance().sum(tensor, memory, present, [this, ticket](const std::string& failure) { back(ticket, failure); });
  return ticket;
}

void Flights::back(std::int64_t ticket, const std::string& failure) {
  Flight flight;
  {
    const std::lock_guard lock(mutex_);
    const auto found = flights_.find(ticket);
    found->second.is_back = true;
    found->second.failure = failure;
    if (!found->second.landed) return;
    flight = std::move(found->second);
    flights_.erase(found);
  }
  flight.landed(flight.sum, flight.failure);
}

void Flights::land(std::int64_t ticket, LandedFn landed) {
  Flight flight;
  {
    const std::lock_guard lock(mutex_);
    const auto found = flights_.find(ticket);
    if (found == flights_.end()) {
      flight.failure = "a gradient is waited for that was not handed in, or was taken before";
    } else if (!found->second.is_back) {
      found->second.landed = std::move(landed);
      return;
    } else {
      flight = std::move(found->second);
      flights_.erase(found);
    }
  }
  landed(flight.sum, flight.failure);
}

}  // namespace poseidon::tensorflow
