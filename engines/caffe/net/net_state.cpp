#include "engines/caffe/net/net_state.h"

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using proto::Message;

bool meets(const NetState& state, const Message& rule) {
  if (rule.has("phase") && rule.choice("phase") != to_string(state.phase)) return false;
  if (rule.has("min_level") && state.level < rule.integer("min_level")) return false;
  if (rule.has("max_level") && state.level > rule.integer("max_level")) return false;
  const auto in_state = [&](const std::string& stage) {
    return std::find(state.stages.begin(), state.stages.end(), stage) != state.stages.end();
  };
  const std::vector<std::string> wanted = rule.texts("stage");
  const std::vector<std::string> unwanted = rule.texts("not_stage");
  return std::all_of(wanted.begin(), wanted.end(), in_state) &&
         std::none_of(unwanted.begin(), unwanted.end(), in_state);
}

bool takes_part(const Message& layer, const NetState& state) {
  const std::vector<Message> includes = layer.messages("include");
  const std::vector<Message> excludes = layer.messages("exclude");
  if (!includes.empty() && !excludes.empty()) {
    throw ConfigError(base::concat(layer.position("exclude").text(), ": layer \"", layer.text("name"),
                                   "\" has both include and exclude rules; give one kind"));
  }
  const auto met = [&](const Message& rule) { return meets(state, rule); };
  if (!includes.empty()) return std::any_of(includes.begin(), includes.end(), met);
  return std::none_of(excludes.begin(), excludes.end(), met);
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string shape_text(const std::vector<std::int64_t>& extents) {
  std::string out = " shape {";
  for (const std::int64_t extent : extents) out += base::concat(" dim: ", extent);
  return out + " }";
}

// The older form as the layer that it stands for.
Message input_layer(const Message& net) {
  const std::vector<std::string> names = net.texts("input");
  const std::vector<std::int64_t> flat = net.integers("input_dim");
  const std::vector<Message> shapes = net.messages("input_shape");
  if (!(shapes.size() == names.size() && flat.empty()) && !(flat.size() == 4 * names.size() && shapes.empty())) {
    throw ConfigError(base::concat(net.position("input").text(),
                                   ": each input needs one input_shape, or four input_dim: there are ", names.size(),
                                   " inputs, ", shapes.size(), " input_shape and ", flat.size(), " input_dim"));
  }
  std::string tops;
  std::string settings;
  for (std::size_t i = 0; i < names.size(); ++i) {
    tops += " top: " + quoted(names[i]);
    const auto begin = flat.begin() + static_cast<std::ptrdiff_t>(4 * i);
    settings += shape_text(flat.empty() ? shapes[i].integers("dim") : std::vector<std::int64_t>(begin, begin + 4));
  }
  return proto::parse_text(base::concat("name: \"input\" type: \"Input\"", tops, " input_param {", settings, " }"),
                           "LayerParameter", net.position("input").file);
}

}  // namespace

NetState merged(NetState state, const Message& message) {
  if (message.has("level")) state.level = message.integer("level");
  const std::vector<std::string> stages = message.texts("stage");
  state.stages.insert(state.stages.end(), stages.begin(), stages.end());
  return state;
}

std::vector<Message> layers_for(const Message& net, const NetState& state) {
  std::vector<Message> layers;
  if (net.has("input")) layers.push_back(input_layer(net));
  for (const Message& layer : net.messages("layer")) {
    if (takes_part(layer, state)) layers.push_back(layer);
  }
  return layers;
}

}  // namespace poseidon::caffe
