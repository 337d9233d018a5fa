#include "engines/caffe/proto/message.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

Message net(std::string_view text) {
  return parse_text(text, "NetParameter", "net.prototxt");
}

// The message of the ConfigError that reading `text` throws; a text of its own when it throws none.
std::string error_of(std::string_view text, std::string_view type = "NetParameter") {
  try {
    static_cast<void>(parse_text(text, type, "net.prototxt"));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "(no error)";
}

std::string nested(std::string_view open, std::string_view close, int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

constexpr std::string_view kTwoLayers = R"(name: "LeNet"
layer {
  name: "conv1"  type: "Convolution"
  bottom: "data"  top: "conv1"
  param { lr_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 20
    kernel_size: 5
    weight_filler { type: "xavier" }
  }
}
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 }
}
)";

TEST(Message, ReadsADeviceIdThatIsAText) {
  const auto solver = [](std::string_view text) { return parse_text(text, "SolverParameter", "solver.prototxt"); };
  const Message names = solver("max_iter: 3 # device_id: 'no'\n  device_id :\n '0,1' type: \"device_id: '2'\"");
  EXPECT_EQ(names.text("gpu_names"), "0,1");
  EXPECT_FALSE(names.has("device_id"));
  EXPECT_EQ(names.position("gpu_names").text(), "solver.prototxt:2:3");
  EXPECT_EQ(names.text("type"), "device_id: '2'");
  EXPECT_EQ(solver("device_id: 2").integer("device_id"), 2);
  // In a layer there is no such field, of either kind.
  EXPECT_NE(error_of("layer { device_id: '0' }").find("device_id"), std::string::npos);
  // Whatever is not closed is the parser's to refuse.
  for (const char* const broken : {"device_id: '0", "device_id: \"\\", "device_id:", "device_id", "'", "\"a\\"}) {
    EXPECT_NE(error_of(broken, "SolverParameter"), "(no error)") << broken;
  }
}

TEST(Message, ReadsFieldsByTheirNames) {
  const Message lenet = net(kTwoLayers);
  EXPECT_EQ(lenet.type_name(), "caffe.NetParameter");
  EXPECT_EQ(lenet.text("name"), "LeNet");
  ASSERT_EQ(lenet.count("layer"), 2u);
  const std::vector<Message> layers = lenet.messages("layer");
  EXPECT_EQ(layers[0].texts("bottom"), std::vector<std::string>{"data"});
  const Message convolution = layers[0].message("convolution_param");
  EXPECT_EQ(convolution.integer("num_output"), 20);
  EXPECT_EQ(convolution.integers("kernel_size"), std::vector<std::int64_t>{5});
  EXPECT_EQ(convolution.message("weight_filler").text("type"), "xavier");
  EXPECT_EQ(layers[0].messages("param")[1].real("lr_mult"), 2.0);
  EXPECT_EQ(layers[1].message("pooling_param").choice("pool"), "AVE");
}

TEST(Message, GivesTheSchemasDefaultsForWhatIsAbsent) {
  const Message layer = net("layer { name: 'x' }").messages("layer")[0];
  EXPECT_FALSE(layer.has("pooling_param"));
  const Message pooling = layer.message("pooling_param");
  EXPECT_EQ(pooling.choice("pool"), "MAX");
  EXPECT_EQ(pooling.integer("stride"), 1);
  EXPECT_FALSE(pooling.has("kernel_size"));
  EXPECT_EQ(layer.message("lrn_param").real("beta"), 0.75);
  EXPECT_TRUE(layer.message("convolution_param").flag("bias_term"));
  EXPECT_TRUE(layer.texts("bottom").empty());
  EXPECT_TRUE(layer.flags("propagate_down").empty());
  // A default of a default: nothing is set anywhere on the way.
  EXPECT_EQ(layer.message("convolution_param").message("weight_filler").text("type"), "constant");
}

TEST(Message, ReadsFloatsAsTheUserWroteThem) {
  const Message solver =
      parse_text("base_lr: 0.01 momentum: 0.9 gamma: 0.0001 weight_decay: 1e-30", "SolverParameter", "s");
  EXPECT_EQ(solver.real("base_lr"), 0.01);
  EXPECT_EQ(solver.real("momentum"), 0.9);
  EXPECT_EQ(solver.real("gamma"), 0.0001);
  EXPECT_EQ(solver.real("weight_decay"), 1e-30);
  EXPECT_EQ(static_cast<float>(solver.real("base_lr")), 0.01f);
  EXPECT_EQ(solver.real("momentum2"), 0.999);  // a default
}

TEST(Message, TellsWhereThingsStand) {
  const Message lenet = net(kTwoLayers);
  const std::vector<Message> layers = lenet.messages("layer");
  EXPECT_EQ(layers[0].position().text(), "net.prototxt:2:1");
  EXPECT_EQ(layers[0].position("type").text(), "net.prototxt:3:18");
  EXPECT_EQ(layers[0].position("param", 1).text(), "net.prototxt:6:3");
  EXPECT_EQ(layers[0].message("convolution_param").position("kernel_size").text(), "net.prototxt:9:5");
  EXPECT_EQ(layers[1].message("pooling_param").position("stride").text(), "net.prototxt:15:44");
  // What is unset stands where its message begins.
  EXPECT_EQ(layers[1].message("pooling_param").position("pad").text(), "net.prototxt:15:3");
  EXPECT_EQ(layers[1].position("param", 3).text(), "net.prototxt:13:1");
  EXPECT_EQ(layers[1].message("relu_param").position("engine").text(), "net.prototxt:13:1");
}

TEST(Message, KeepsItsDocumentAlive) {
  const Message filler = net(kTwoLayers).messages("layer")[0].message("convolution_param").message("weight_filler");
  EXPECT_EQ(filler.text("type"), "xavier");
}

TEST(Message, PrintsTextThatReadsAsTheSame) {
  const Message first = net(kTwoLayers);
  const Message second = net(first.as_text());
  EXPECT_EQ(first.as_text(), second.as_text());
  EXPECT_NE(first.as_text().find("pool: AVE"), std::string::npos);
}

TEST(Message, AcceptsSingleQuotesCommentsCommasAndLists) {
  const Message shape = net("# a comment\nname: 'x', layer { reshape_param { shape { dim: [1, 3, 8, 8] } } };")
                            .messages("layer")[0]
                            .message("reshape_param")
                            .message("shape");
  EXPECT_EQ(shape.integers("dim"), (std::vector<std::int64_t>{1, 3, 8, 8}));
  EXPECT_EQ(shape.position("dim", 2).text(), "net.prototxt:2:44");
}

TEST(Message, AcceptsAByteOrderMarkAndWindowsLineEnds) {
  EXPECT_EQ(net("\xEF\xBB\xBFname: \"x\"\r\nforce_backward: true\r\n").text("name"), "x");
}

TEST(Message, ThrowsLogicErrorsForMistakesOfTheProgram) {
  const Message lenet = net(kTwoLayers);
  EXPECT_THROW(static_cast<void>(lenet.text("nonsense")), std::logic_error);
  EXPECT_THROW(static_cast<void>(lenet.integer("name")), std::logic_error);
  EXPECT_THROW(static_cast<void>(lenet.message("layer")), std::logic_error);
  EXPECT_THROW(static_cast<void>(lenet.messages("state")), std::logic_error);
  EXPECT_THROW(static_cast<void>(parse_text("name: 'x'", "NoSuchParameter", "f")), std::logic_error);
}

TEST(PrototxtError, NamesTheNearestFieldAndTheLayer) {
  EXPECT_EQ(error_of("layer {\n  name: \"pool1\"\n  pooling_param {\n    kernl_size: 2\n  }\n}\n"),
            "net.prototxt:4:5: \"kernl_size\" is not a field of pooling_param; did you mean kernel_size? (in layer "
            "\"pool1\")");
  EXPECT_EQ(error_of("nam: 'x'"), "net.prototxt:1:1: \"nam\" is not a field of NetParameter; did you mean name?");
}

TEST(PrototxtError, SaysWhichBracesWereForgotten) {
  EXPECT_EQ(
      error_of("layer {\n  name: 'a'\n  crop_size: 28\n}\n"),
      "net.prototxt:3:3: \"crop_size\" is not a field of layer; it belongs inside transform_param, data_param and "
      "image_data_param { ... } (in layer \"a\")");
}

TEST(PrototxtError, NamesTheValuesOfAChoice) {
  EXPECT_EQ(
      error_of("layer {\n name: 'p'\n pooling_param { pool: MAXX }\n}"),
      "net.prototxt:3:24: \"MAXX\" is not a value of pool, which takes MAX, AVE and STOCHASTIC; did you mean MAX? "
      "(in layer \"p\")");
}

TEST(PrototxtError, KnowsTheRightMessageInsideAList) {
  EXPECT_EQ(error_of("layer: [ { name: 'a' }, { name: 'b' topp: 'c' } ]"),
            "net.prototxt:1:37: \"topp\" is not a field of layer; did you mean top? (in layer \"b\")");
}

TEST(PrototxtError, SaysWhereTheSyntaxIsBroken) {
  EXPECT_EQ(error_of("name: 'x'\nlayer {\n  name: 'a'\n"),
            "net.prototxt:4:1: the file ends inside layer; a } is missing (in layer \"a\")");
  EXPECT_EQ(error_of("layer {\n  name: 'a'\n  convolution_param { num_output: many }\n}").substr(0, 20),
            "net.prototxt:3:35: E");
  EXPECT_EQ(error_of("name: 'x'\nname: 'y'\n").substr(0, 18), "net.prototxt:2:5: ");
  EXPECT_EQ(error_of("name: \"unfinished\n").substr(0, 18), "net.prototxt:1:18:");
}

TEST(PrototxtError, NamesLayersOfOlderForms) {
  EXPECT_EQ(error_of("name: 'x'\nlayers {\n  name: 'a'\n  blob_lr: 1\n}\n"),
            "net.prototxt:4:3: \"blob_lr\" is not a field of layers; did you mean blobs_lr? (in layer \"a\")");
  EXPECT_EQ(error_of("layers { layer { name: 'a' kernel_size: 1 } }"),
            "net.prototxt:1:28: \"kernel_size\" is not a field of layer; did you mean kernelsize? (in layer \"a\")");
}

TEST(PrototxtError, NoticesThatNetAndSolverAreMixedUp) {
  EXPECT_NE(error_of("base_lr: 0.1").find("net and solver file mixed up"), std::string::npos);
  EXPECT_NE(error_of("layer { name: 'a' }", "SolverParameter").find("net and solver file mixed up"), std::string::npos);
}

TEST(PrototxtError, RefusesWhatIsEmptyOrNotText) {
  EXPECT_EQ(error_of(""), "net.prototxt: is empty; a NetParameter in text format was expected");
  EXPECT_EQ(error_of(" \n# only a comment\n"), "net.prototxt: is empty; a NetParameter in text format was expected");
  EXPECT_NE(error_of(std::string_view("name: \0", 7)).find("is not a text file (byte 6 has the value 0)"),
            std::string::npos);
  std::string garbage;
  for (int i = 0; i < 1000; ++i) garbage += static_cast<char>(i * 7919 % 251);
  EXPECT_NE(error_of(garbage), "(no error)");
}

TEST(PrototxtError, StopsAtDeepNesting) {
  EXPECT_NE(error_of("layer " + nested("{ transform_param ", "}", 100'000)), "(no error)");
  EXPECT_NE(error_of(nested("x {", "}", 100'000)), "(no error)");
  EXPECT_NE(error_of(nested("layer: [", "]", 100'000)), "(no error)");
}

TEST(PrototxtError, NamesAFileThatCannotBeRead) {
  const auto error_at = [](const std::filesystem::path& file) -> std::string {
    try {
      static_cast<void>(read_text(file, "NetParameter"));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "(no error)";
  };
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "message_test";
  std::filesystem::create_directories(folder);
  EXPECT_EQ(error_at(folder / "none.prototxt"),
            "cannot read " + (folder / "none.prototxt").string() + ": No such file or directory");
  EXPECT_EQ(error_at(folder), "cannot read " + folder.string() + ": it is not a file");
  std::ofstream(folder / "bad.prototxt") << "layer {\n}\n}\n";
  EXPECT_EQ(error_at(folder / "bad.prototxt").substr(0, (folder / "bad.prototxt:3:1: ").string().size()),
            (folder / "bad.prototxt:3:1: ").string());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace poseidon::caffe::proto
