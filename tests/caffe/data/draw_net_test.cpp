#include "engines/caffe/tools/draw_net.h"

#include <gtest/gtest.h>

namespace poseidon::caffe {
namespace {

std::string drawn(const std::string& layers, const DrawNetOptions& options = {}) {
  const std::string dot =
      net_as_dot(proto::parse_text("name: 'net' " + layers, "NetParameter", "net.prototxt"), options);
  const std::string head =
      "digraph \"net\" {\n  rankdir=" + options.direction +
      ";\n  node [style=filled, fontname=\"Helvetica\", fontsize=11];\n  edge [fontname=\"Helvetica\", fontsize=9];\n";
  EXPECT_EQ(dot.substr(0, head.size()), head);
  EXPECT_EQ(dot.substr(dot.size() - 2), "}\n");
  return dot.substr(head.size(), dot.size() - head.size() - 2);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(DrawNet, JoinsLayersByTheirBlobs) {
  EXPECT_EQ(
      drawn(
          "layer { name: 'd' type: 'Data' top: 'data' top: 'label' data_param { batch_size: 64 } }"
          "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'out' inner_product_param { num_output: 10 } }"),
      "  layer0 [label=\"d\\n(Data)\", shape=box, fillcolor=\"#D5C4E8\"];\n"
      "  \"blob data\" [label=\"data\", shape=octagon, fillcolor=\"#E8E8E8\"];\n"
      "  layer0 -> \"blob data\" [label=\"batch 64\"];\n"
      "  \"blob label\" [label=\"label\", shape=octagon, fillcolor=\"#E8E8E8\"];\n"
      "  layer0 -> \"blob label\" [label=\"batch 64\"];\n"
      "  layer1 [label=\"ip\\n(InnerProduct)\", shape=box, fillcolor=\"#F7C98B\"];\n"
      "  \"blob data\" -> layer1;\n"
      "  \"blob out\" [label=\"out\", shape=octagon, fillcolor=\"#E8E8E8\"];\n"
      "  layer1 -> \"blob out\" [label=\"10\"];\n");
}

TEST(DrawNet, HangsLayersInPlaceOnTheirBlob) {
  EXPECT_EQ(drawn("layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' }"),
            "  layer0 [label=\"r\\n(ReLU)\", shape=box, fillcolor=\"#BFE3B4\"];\n"
            "  \"blob x\" [label=\"x\", shape=octagon, fillcolor=\"#E8E8E8\"];\n"
            "  \"blob x\" -> layer0 [dir=both];\n");
}

TEST(DrawNet, WritesTheWindowsOfConvolutionAndPooling) {
  const auto label = [](const std::string& layer) {
    const std::string text = drawn("layer { name: 'n' bottom: 'x' top: 'y' " + layer + " }");
    const std::size_t begin = text.find("label=\"") + 7;
    return text.substr(begin, text.find("\", shape") - begin);
  };
  EXPECT_EQ(label("type: 'Convolution' convolution_param { kernel_size: 5 stride: 2 pad: 1 }"),
            "n\\n(Convolution)\\nkernel 5\\nstride 2\\npad 1");
  EXPECT_EQ(label("type: 'Convolution' convolution_param { kernel_size: 5 kernel_size: 3 }"),
            "n\\n(Convolution)\\nkernel 5 x 3");
  EXPECT_EQ(label("type: 'Deconvolution' convolution_param { kernel_h: 1 kernel_w: 7 }"),
            "n\\n(Deconvolution)\\nkernel 1 x 7");
  EXPECT_EQ(label("type: 'Pooling' pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
            "n\\n(AVE Pooling)\\nkernel 3\\nstride 2");
  EXPECT_EQ(label("type: 'Pooling' pooling_param { global_pooling: true }"), "n\\n(MAX Pooling)\\nglobal");
}

TEST(DrawNet, TakesTheLayersOfAPhase) {
  const std::string net =
      "layer { name: 'a' type: 'Data' top: 'x' include { phase: TRAIN } }"
      "layer { name: 'b' type: 'Data' top: 'x' include { phase: TEST } include { stage: 's' phase: TEST } }"
      "layer { name: 'c' type: 'ReLU' bottom: 'x' top: 'y' }"
      "layer { name: 'd' type: 'Accuracy' bottom: 'y' top: 'z' exclude { phase: TRAIN } }";
  const auto names = [&](std::optional<std::string> phase) {
    const std::string text = drawn(net, {.direction = "TB", .phase = std::move(phase)});
    std::string found;
    for (const char* const name : {"a", "b", "c", "d"}) {
      if (contains(text, std::string("label=\"") + name + "\\n")) found += name;
    }
    return found;
  };
  EXPECT_EQ(names(std::nullopt), "abcd");
  EXPECT_EQ(names("TRAIN"), "ac");
  EXPECT_EQ(names("TEST"), "bcd");
}

TEST(DrawNet, WritesLearningRateFactorsWhenAsked) {
  const std::string net = "layer { name: 'n' type: 'X' param { lr_mult: 1 } param { lr_mult: 2.5 } }";
  EXPECT_TRUE(contains(drawn(net, {.learning_rates = true}), "\"n\\n(X)\\nlr_mult 1 2.5\""));
  EXPECT_FALSE(contains(drawn(net), "lr_mult"));
}

TEST(DrawNet, QuotesNames) {
  const std::string text = drawn("layer { name: 'a\"b\\\\c' type: 'X' top: 'two words\"' }");
  EXPECT_TRUE(contains(text, "[label=\"a\\\"b\\\\c\\n(X)\"")) << text;
  EXPECT_TRUE(contains(text, "\"blob two words\\\"\" [label=\"two words\\\"\"")) << text;
}

}  // namespace
}  // namespace poseidon::caffe
