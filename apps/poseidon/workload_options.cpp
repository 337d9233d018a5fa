#include "apps/poseidon/workload_options.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/net/description.h"
#include "engines/caffe/proto/config_error.h"
#include "plan/choose.h"
#include "plan/hosts.h"
#include "plan/partition.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kDescriptionBytesMax = 64 << 20;

// adam has no place in the bound (its owner is the bottleneck); asked for, it is given to every layer that can.
void override_schemes(const plan::SchemeRequest& request, const Model& model, int nodes, plan::Plan& plan) {
  std::int32_t next_owner = 0;
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const std::optional<plan::LayerSize> size = plan::factor_size(model, model.layers[l]);
    const auto named = request.by_layer.find(model.layers[l].name);
    const std::optional<Scheme> wanted = named != request.by_layer.end() ? std::optional(named->second) : request.all;
    if (!wanted || !size) continue;
    plan::LayerPlan layer{model.layers[l].name, *wanted, {}, Rank{0}};
    if (*wanted == Scheme::kBlock) {
      layer.grid = plan::best_grid(static_cast<double>(size->rows), static_cast<double>(size->cols), nodes);
      if (layer.grid.rows == 0) layer = {model.layers[l].name, Scheme::kPs, {}, Rank{0}};
    }
    if (*wanted == Scheme::kAdam) layer.owner = Rank{next_owner++ % nodes};
    plan.layers[l] = layer;
  }
}

bool is_json(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && (text[first] == '{' || text[first] == '[');
}

Result<plan::ModelDescription> describe_json(const std::string& text, const WorkloadOptions& options) {
  Result<plan::ModelDescription> description = plan::parse_model_description(text);
  if (!description) return Error{description.error().code, base::concat(options.model, ": ", description.error().message)};
  if (description->name.empty()) description->name = options.model;
  return description;
}

Result<plan::ModelDescription> describe_net(const std::string& text, const WorkloadOptions& options) {
  try {
    const caffe::proto::Message net = caffe::proto::parse_text(text, "NetParameter", options.model);
    plan::ModelDescription description = caffe::describe(net, caffe::standard_layers(), options.record);
    if (description.name.empty()) description.name = options.model;
    return description;
  } catch (const caffe::ConfigError& error) {
    return Error{ErrorCode::kInvalid, error.what()};
  }
}

}  // namespace

void WorkloadOptions::describe(CLI::App& app) {
  app.add_option("--model", model, "a model description (JSON, as in examples/models), or the prototxt of a net")->required();
  app.add_option("--record", record, "channels, height and width of the images, for a prototxt that does not say: 3,227,227")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--batch", batch, "samples of each worker in an iteration")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--images-per-second,--samples-per-second", samples_per_second, "that one worker alone trains")
      ->required()
      ->check(CLI::PositiveNumber);
  app.add_option("--scheme", scheme,
                 "how gradients travel: auto, ps, sfb, adam or block, and LAYER=SCHEME for exceptions, separated by commas")
      ->capture_default_str();
  add_wire(app, wire);
}

Result<replay::Workload> read_workload(const WorkloadOptions& options) {
  Result<std::string> text = base::read_file(options.model, kDescriptionBytesMax);
  if (!text) return text.error();
  Result<plan::ModelDescription> description =
      is_json(*text) ? describe_json(*text, options) : describe_net(*text, options);
  if (!description) return description.error();
  return replay::Workload{std::move(*description), options.batch, options.samples_per_second, 1};
}

Result<Prospect> prospect(const replay::Workload& workload, const WorkloadOptions& options, int workers, const plan::Serving& serving,
                          const Link& link, const plan::HostGroups& hosts) {
  Result<plan::SchemeRequest> request = plan::parse_scheme_request(options.scheme);
  if (!request) return request.error();
  // A host is to the network one worker with the batches, and the speed, of all of its own.
  const auto per_node = static_cast<std::int64_t>(plan::largest_group(hosts));
  const int nodes = hosts.empty() ? workers : static_cast<int>(hosts.size());
  const plan::DescribedModel model = plan::model_of(workload.description, workload.batch * per_node);
  // What is wrong with the request is said as it is in training.
  const Result<std::vector<plan::LayerChoice>> checked = plan::choose(model.model, nodes, *request, {}, true);
  if (!checked) return checked.error();
  const plan::BoundAnswer best = plan::least_time({.description = &workload.description,
                                                   .batch = workload.batch * per_node,
                                                   .samples_per_second = static_cast<double>(per_node) * workload.samples_per_second / workload.dilation,
                                                   .workers = nodes,
                                                   .serving = serving,
                                                   .link_bytes_per_second = link.bytes_per_second,
                                                   .wire = plan::on_wire(DType::kFloat32, options.wire)});
  Prospect result{{.workers = workers, .layers = {}, .hosts = hosts}, best.seconds, {}};
  result.plan.wire = options.wire;
  // Of the links that dilated ones stand for: their latency is as dilated as their rate.
  result.plan.chunk_bytes = plan::chunk_bytes_for(link.bytes_per_second * workload.dilation, link.latency_seconds);
  if (serving.servers > 0) {
    result.plan.server_shares = plan::parts_per_million(plan::server_shares(workers, serving.servers, serving.colocated).of_node);
  }
  for (std::size_t l = 0; l < model.model.layers.size(); ++l) {
    const plan::SchemeCost& cost = best.schemes[l];
    result.plan.layers.push_back({model.model.layers[l].name, cost.scheme, cost.grid, Rank{0}});
    result.link_seconds.push_back(best.layers[model.layer_of[l]].link);
  }
  override_schemes(*request, model.model, nodes, result.plan);
  return result;
}

}  // namespace poseidon::app
