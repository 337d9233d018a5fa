#include "plan/search.h"

#include <algorithm>

namespace poseidon::plan {
namespace {

// All combinations of three options for so many places: 729 costs.
constexpr std::size_t kExhaustivePlacesMax = 6;
// The local search begins with the first option everywhere, with the second, and with the third.
constexpr std::size_t kStarts = 3;

class Search {
 public:
  Search(const std::vector<std::size_t>& options, const std::function<double(const Choice&)>& cost)
      : options_(options), cost_(cost), best_(options.size(), 0) {
    for (std::size_t i = 0; i < options.size(); ++i) {
      if (options[i] > 1) free_.push_back(i);
    }
    least_ = cost_(best_);
  }

  Choice run() {
    if (free_.size() <= kExhaustivePlacesMax) {
      Choice choice(options_.size(), 0);
      try_all(choice, 0);
    } else {
      for (std::size_t start = 0; start < kStarts; ++start) descend(start);
    }
    return best_;
  }

 private:
  void consider(const Choice& choice, double cost) {
    // A hair's breadth of difference is rounding, and the simpler option stands.
    if (cost >= least_ * (1 - 1e-12)) return;
    least_ = cost;
    best_ = choice;
  }

  void try_all(Choice& choice, std::size_t next) {
    if (next == free_.size()) return consider(choice, cost_(choice));
    for (std::size_t option = 0; option < options_[free_[next]]; ++option) {
      choice[free_[next]] = option;
      try_all(choice, next + 1);
    }
    choice[free_[next]] = 0;
  }

  // Moves of one place or of two neighbours at once, as long as they gain: one layer's bytes often pay only together with the
  // next one's.
  void descend(std::size_t start) {
    Choice now(options_.size(), 0);
    for (const std::size_t i : free_) now[i] = std::min(start, options_[i] - 1);
    double least = cost_(now);
    for (bool better = true; better;) {
      better = false;
      const auto attempt = [&](const Choice& trial) {
        const double cost = cost_(trial);
        if (cost >= least - 1e-9) return;
        least = cost;
        now = trial;
        better = true;
      };
      for (std::size_t i = 0; i < free_.size(); ++i) {
        for (std::size_t a = 0; a < options_[free_[i]]; ++a) {
          Choice trial = now;
          trial[free_[i]] = a;
          attempt(trial);
          if (i + 1 == free_.size()) continue;
          for (std::size_t b = 0; b < options_[free_[i + 1]]; ++b) {
            trial[free_[i + 1]] = b;
            attempt(trial);
          }
        }
      }
    }
    consider(now, least);
  }

  const std::vector<std::size_t>& options_;
  const std::function<double(const Choice&)>& cost_;
  std::vector<std::size_t> free_;  // the places that have a choice
  Choice best_;
  double least_ = 0;
};

}  // namespace

Choice search(const std::vector<std::size_t>& options, const std::function<double(const Choice&)>& cost) {
  return Search(options, cost).run();
}

}  // namespace poseidon::plan
