#include "plan/choose.h"

#include <algorithm>
#include <iomanip>
#include <numeric>
#include <sstream>

#include "base/text.h"

namespace poseidon::plan {
namespace {

constexpr std::array<Scheme, 4> kSchemes = {Scheme::kPs, Scheme::kSfb, Scheme::kAdam, Scheme::kBlock};

std::size_t at(Scheme scheme) { return static_cast<std::size_t>(scheme); }

// A layer that can only travel densely: what ps costs for all its arrays together.
Prediction predict_dense(std::uint64_t numbers, int workers, DType dtype, const Speeds& speeds, const ServerShares* serving) {
  return predict(Scheme::kPs, {.rows = numbers, .cols = 1, .batch = 0, .bias = false}, workers, {}, dtype, speeds, serving);
}

Scheme fastest(const LayerChoice& choice) {
  Scheme best = Scheme::kPs;
  for (const Scheme scheme : kSchemes) {
    const auto& a = choice.predictions[at(scheme)];
    const auto& b = choice.predictions[at(best)];
    if (a && (a->seconds < b->seconds || (a->seconds == b->seconds && a->bytes_in_all < b->bytes_in_all))) best = scheme;
  }
  return best;
}

}  // namespace

Result<SchemeRequest> parse_scheme_request(std::string_view text) {
  SchemeRequest request;
  std::stringstream words{std::string(text)};
  std::string word;
  while (std::getline(words, word, ',')) {
    const std::size_t equals = word.find('=');
    const std::string name = equals == std::string::npos ? word : word.substr(equals + 1);
    if (name == "auto" && equals == std::string::npos) {
      request.all.reset();
      continue;
    }
    Result<Scheme> scheme = parse_scheme(name);
    if (!scheme) {
      return Error{ErrorCode::kInvalid, base::concat("--scheme ", text, ": ", scheme.error().message,
                                                     "; write auto, a scheme, or LAYER=SCHEME, separated by commas")};
    }
    if (equals == std::string::npos) {
      request.all = *scheme;
    } else {
      request.by_layer[word.substr(0, equals)] = *scheme;
    }
  }
  return request;
}

Result<std::vector<LayerChoice>> choose(const Model& model, int workers, const SchemeRequest& request, const Speeds& speeds,
                                        bool alike, const ServerShares* serving) {
  for (const auto& [name, scheme] : request.by_layer) {
    const auto layer = std::find_if(model.layers.begin(), model.layers.end(), [&wanted = name](const LayerSpec& l) { return l.name == wanted; });
    if (layer == model.layers.end()) {
      std::vector<std::string> names;
      for (const LayerSpec& l : model.layers) names.push_back(l.name);
      return Error{ErrorCode::kInvalid, base::concat("--scheme ", name, "=", to_string(scheme), ": the net has no layer \"", name,
                                                     "\" with parameters", base::did_you_mean(name, names))};
    }
    if (scheme != Scheme::kPs && layer->factor_rows == 0) {
      return Error{ErrorCode::kInvalid, base::concat("--scheme ", name, "=", to_string(scheme), ": the gradient of layer ", name,
                                                     " has no sufficient factors, so only ps is possible for it")};
    }
  }
  std::vector<LayerChoice> choices;
  std::vector<std::uint64_t> adam_bytes(static_cast<std::size_t>(workers), 0);
  for (const LayerSpec& layer : model.layers) {
    LayerChoice choice;
    choice.name = layer.name;
    choice.factors = factor_size(model, layer);
    for (const TensorId tensor : layer.tensors) choice.parameters += model.tensors[index(tensor)].elements();
    const DType dtype = model.tensors[index(layer.tensors[0])].dtype;
    Grid grid;
    if (choice.factors) {
      grid = best_grid(static_cast<double>(choice.factors->rows), static_cast<double>(choice.factors->cols), workers);
      for (const Scheme scheme : kSchemes) {
        if ((scheme == Scheme::kBlock && grid.rows == 0) || (scheme == Scheme::kSfb && !alike)) continue;
        choice.predictions[at(scheme)] = predict(scheme, *choice.factors, workers, grid, dtype, speeds, serving);
      }
    } else {
      choice.predictions[at(Scheme::kPs)] = predict_dense(choice.parameters, workers, dtype, speeds, serving);
    }
    Scheme scheme = fastest(choice);
    if (const auto named = request.by_layer.find(layer.name); named != request.by_layer.end()) {
      scheme = named->second;
      choice.requested = true;
    } else if (request.all) {
      scheme = choice.factors ? *request.all : Scheme::kPs;
      choice.requested = true;
    }
    if (!choice.predictions[at(scheme)] && scheme == Scheme::kSfb) {
      return Error{ErrorCode::kInvalid, base::concat("--scheme: layer ", layer.name, " cannot use sfb: the workers' processors or ",
                                                     "thread counts differ, so their replicas would not stay equal")};
    }
    if (!choice.predictions[at(scheme)]) {
      return Error{ErrorCode::kInvalid, base::concat("--scheme: layer ", layer.name, " is too small for one block each of ",
                                                     workers, " workers; give it another scheme: ", layer.name, "=ps")};
    }
    choice.chosen = {layer.name, scheme, {}, Rank{0}};
    if (scheme == Scheme::kBlock) choice.chosen.grid = grid;
    if (scheme == Scheme::kAdam) {
      // The owner carries P times the others' load, so each layer goes to the one with the least so far.
      const auto least = std::min_element(adam_bytes.begin(), adam_bytes.end());
      *least += choice.parameters;
      choice.chosen.owner = Rank{static_cast<std::int32_t>(least - adam_bytes.begin())};
    }
    choices.push_back(std::move(choice));
  }
  return choices;
}

Plan plan_of(const std::vector<LayerChoice>& choices, int workers) {
  Plan plan{workers, {}};
  for (const LayerChoice& choice : choices) plan.layers.push_back(choice.chosen);
  return plan;
}

std::string choice_table(const std::vector<LayerChoice>& choices, int workers, const Speeds& speeds) {
  std::ostringstream out;
  out << "Schemes for " << workers << " workers; link " << std::fixed << std::setprecision(2)
      << speeds.link_bytes_per_second * 8 / 1e9 << " Gbit/s, latency " << base::readable_seconds(speeds.latency_seconds)
      << ", products " << std::setprecision(1) << speeds.flops_per_second / 1e9
      << " GFLOP/s. Bytes that all workers send per iteration, and predicted time:\n";
  std::size_t width = 5;
  for (const LayerChoice& choice : choices) width = std::max(width, choice.name.size());
  out << "  " << std::left << std::setw(static_cast<int>(width)) << "layer" << "  " << std::setw(20) << "gradient";
  for (const Scheme scheme : kSchemes) out << std::setw(21) << to_string(scheme);
  out << "choice\n";
  for (const LayerChoice& choice : choices) {
    out << "  " << std::setw(static_cast<int>(width)) << choice.name << "  ";
    out << std::setw(20)
        << (choice.factors ? base::concat(choice.factors->rows, " x ", choice.factors->cols, ", K ", choice.factors->batch)
                           : base::concat(choice.parameters, " numbers"));
    for (const Scheme scheme : kSchemes) {
      const auto& prediction = choice.predictions[at(scheme)];
      out << std::setw(21)
          << (prediction ? base::concat(base::readable_bytes(static_cast<double>(prediction->bytes_in_all)), ", ",
                                        base::readable_seconds(prediction->seconds))
                         : "-");
    }
    out << to_string(choice.chosen.scheme);
    if (choice.chosen.scheme == Scheme::kBlock) out << " " << choice.chosen.grid.rows << "x" << choice.chosen.grid.cols;
    if (choice.chosen.scheme == Scheme::kAdam) out << " at rank " << index(choice.chosen.owner);
    if (choice.requested) out << " (asked for)";
    out << "\n";
  }
  return out.str();
}

std::string serving_text(const Plan& plan) {
  if (plan.server_shares.empty()) return "";
  const double all = std::accumulate(plan.server_shares.begin(), plan.server_shares.end(), 0.0);
  // "10 %", or "5 to 20 %" where they differ by more than rounding.
  const auto described = [&](auto begin, auto end) {
    const auto [least, most] = std::minmax_element(begin, end);
    std::ostringstream out;
    out << std::setprecision(3) << 100 * *least / all;
    if (*most > *least + 1) out << " to " << 100 * *most / all;
    return out.str() + " %";
  };
  const auto servers = plan.server_shares.begin() + plan.workers;
  std::string text = base::concat("Dense layers: each worker serves ", described(plan.server_shares.begin(), servers));
  if (servers != plan.server_shares.end()) {
    text += base::concat(", each of ", plan.nodes() - plan.workers, " dedicated servers ", described(servers, plan.server_shares.end()));
  }
  return text + "\n";
}

}  // namespace poseidon::plan
