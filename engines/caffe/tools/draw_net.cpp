#include "engines/caffe/tools/draw_net.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace poseidon::caffe {
namespace {

using base::concat;
using proto::Message;

constexpr std::string_view kBlobColour = "#E8E8E8";
constexpr std::string_view kInPlaceColour = "#BFE3B4";  // activations, for the most part
constexpr std::string_view kOtherColour = "#C9D7EE";

// Pale enough for black text, and apart from each other for colour-blind people too.
std::string_view colour_of(const std::string& type) {
  static const std::map<std::string_view, std::string_view> colours = [] {
    std::map<std::string_view, std::string_view> by_type;
    const auto add = [&](std::string_view colour, std::initializer_list<std::string_view> types) {
      for (const std::string_view t : types) by_type.emplace(t, colour);
    };
    add("#D5C4E8", {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"});
    add("#F4A582", {"Convolution", "Deconvolution", "Im2col"});
    add("#F7C98B", {"InnerProduct", "Embed", "LSTM", "LSTMUnit", "RNN", "Recurrent"});
    add("#F6E58D", {"Pooling", "SPP"});
    add("#9FD8D2", {"BatchNorm", "LRN", "MVN", "Scale", "Bias"});
    add(kInPlaceColour, {"AbsVal", "BNLL", "Clip", "Dropout", "ELU", "Exp", "Log", "PReLU", "Power", "ReLU", "Sigmoid",
                         "Softmax", "Swish", "TanH", "Threshold"});
    add("#F2A9B5", {"Accuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss",
                    "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss"});
    return by_type;
  }();
  const auto found = colours.find(type);
  return found == colours.end() ? kOtherColour : found->second;
}

// A string of DOT. Line breaks become those of a label.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// "5", "3 x 5": of the fields of a convolution or pooling, which give all axes at once or rows and columns.
std::string extent_text(const Message& settings, const std::string& field, const std::string& stem) {
  if (settings.has(stem + "_h") || settings.has(stem + "_w")) {
    return concat(settings.integer(stem + "_h"), " x ", settings.integer(stem + "_w"));
  }
  if (!settings.has(field)) return "";
  if (settings.type_name() == "caffe.PoolingParameter") return concat(settings.integer(field));
  std::string text;
  for (const std::int64_t extent : settings.integers(field)) text += concat(text.empty() ? "" : " x ", extent);
  return text;
}

std::string window_text(const Message& settings) {
  std::string text;
  const auto line = [&](std::string_view what, const std::string& value) {
    if (!value.empty()) text += concat("\n", what, " ", value);
  };
  line("kernel", extent_text(settings, "kernel_size", "kernel"));
  line("stride", extent_text(settings, "stride", "stride"));
  line("pad", extent_text(settings, "pad", "pad"));
  return text;
}

std::string label_of(const Message& layer, const DrawNetOptions& options) {
  const std::string type = layer.text("type");
  std::string label = layer.text("name");
  if (type == "Pooling") {
    const Message pooling = layer.message("pooling_param");
    label += concat("\n(", pooling.choice("pool"), " ", type, ")");
    label += pooling.flag("global_pooling") ? "\nglobal" : window_text(pooling);
  } else {
    label += concat("\n(", type, ")");
    if (type == "Convolution" || type == "Deconvolution") label += window_text(layer.message("convolution_param"));
  }
  if (options.learning_rates && layer.has("param")) {
    label += "\nlr_mult";
    for (const Message& param : layer.messages("param")) label += concat(" ", param.real("lr_mult"));
  }
  return label;
}

// What the arrow to a top says: how many numbers a record has there, or how many records there are.
std::string output_text(const Message& layer) {
  const std::string type = layer.text("type");
  if (type == "Convolution" || type == "Deconvolution") {
    return concat(layer.message("convolution_param").integer("num_output"));
  }
  if (type == "InnerProduct") return concat(layer.message("inner_product_param").integer("num_output"));
  if (type == "Data") return concat("batch ", layer.message("data_param").integer("batch_size"));
  if (type == "ImageData") return concat("batch ", layer.message("image_data_param").integer("batch_size"));
  return "";
}

// A rule that does not name a phase says nothing about it.
bool takes_part(const Message& layer, const std::string& phase) {
  const auto names = [&](const Message& rule) { return rule.has("phase") && rule.choice("phase") == phase; };
  const auto allows = [&](const Message& rule) { return !rule.has("phase") || names(rule); };
  const std::vector<Message> include = layer.messages("include");
  const std::vector<Message> exclude = layer.messages("exclude");
  return (include.empty() || std::any_of(include.begin(), include.end(), allows)) &&
         std::none_of(exclude.begin(), exclude.end(), names);
}

class Drawing {
 public:
  explicit Drawing(const DrawNetOptions& options) : options_(options) {}

  void add(const Message& layer) {
    const std::vector<std::string> bottoms = layer.texts("bottom");
    const std::vector<std::string> tops = layer.texts("top");
    const bool in_place = bottoms.size() == 1 && bottoms == tops;
    const std::string node = concat("layer", layers_++);
    const std::string_view colour = in_place ? kInPlaceColour : colour_of(layer.text("type"));
    lines_ += concat("  ", node, " [label=", in_quotes(label_of(layer, options_)), ", shape=box, fillcolor=\"", colour,
                     "\"];\n");
    for (const std::string& bottom : bottoms) {
      lines_ += concat("  ", blob(bottom), " -> ", node, in_place ? " [dir=both]" : "", ";\n");
    }
    if (in_place) return;
    const std::string output = output_text(layer);
    for (const std::string& top : tops) {
      const std::string label = output.empty() ? "" : concat(" [label=", in_quotes(output), "]");
      lines_ += concat("  ", node, " -> ", blob(top), label, ";\n");
    }
  }

  std::string finished(const std::string& name) const {
    return concat("digraph ", in_quotes(name), " {\n  rankdir=", options_.direction,
                  ";\n  node [style=filled, fontname=\"Helvetica\", fontsize=11];\n  edge [fontname=\"Helvetica\", "
                  "fontsize=9];\n",
                  lines_, "}\n");
  }

 private:
  // The blob's node, drawn when it is first named.
  std::string blob(const std::string& name) {
    const std::string node = in_quotes("blob " + name);
    if (drawn_.insert(name).second) {
      lines_ += concat("  ", node, " [label=", in_quotes(name), ", shape=octagon, fillcolor=\"", kBlobColour, "\"];\n");
    }
    return node;
  }

  const DrawNetOptions& options_;
  std::string lines_;
  std::size_t layers_ = 0;
  std::set<std::string> drawn_;
};

}  // namespace

std::string net_as_dot(const Message& net, const DrawNetOptions& options) {
  Drawing drawing(options);
  for (const Message& layer : net.messages("layer")) {
    if (!options.phase || takes_part(layer, *options.phase)) drawing.add(layer);
  }
  return drawing.finished(net.text("name"));
}

}  // namespace poseidon::caffe
