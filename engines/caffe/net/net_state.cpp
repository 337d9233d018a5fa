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

}  // namespace

NetState merged(NetState state, const Message& message) {
  if (message.has("level")) state.level = message.integer("level");
  const std::vector<std::string> stages = message.texts("stage");
  state.stages.insert(state.stages.end(), stages.begin(), stages.end());
  return state;
}

std::vector<Message> layers_for(const Message& net, const NetState& state) {
  std::vector<Message> layers;
  for (const Message& layer : net.messages("layer")) {
    if (takes_part(layer, state)) layers.push_back(layer);
  }
  return layers;
}

}  // namespace poseidon::caffe
