// HDF5Data and HDF5Output.
#include <sys/resource.h>

#include <map>

#include "base/text.h"
#include "caffe/data/data_bases.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/data/hdf5_file.h"

namespace poseidon::caffe {
namespace {

using hdf5::Object;
using testing::error_of;
using testing::expect_near;
using testing::Made;
using testing::make_layer;
using testing::tensor_of;
using testing::values_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;

proto::Blob blob(std::vector<std::int64_t> shape, std::vector<float> values) {
  return {.shape = std::move(shape), .values = std::move(values)};
}

class Hdf5Data : public ::testing::Test {
 protected:
  // Two files: rows 0 to 2, and 3 to 7. Row i has data [10 i, 10 i + 1] as [2, 1], label i and, as doubles, weight i/2.
  void SetUp() override {
    ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
    write("a.h5", 0, 3);
    write("b.h5", 3, 5);
    write_file(folder_ / "list", path("a.h5") + "\n" + path("b.h5") + "\n");
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  void write(const std::string& name, int first, int rows) const {
    proto::Blob data = blob({rows, 2, 1}, {});
    proto::Blob label = blob({rows}, {});
    proto::Blob weight{.shape = {rows, 1}, .values = std::vector<double>()};
    for (int i = first; i < first + rows; ++i) {
      auto& numbers = std::get<std::vector<float>>(data.values);
      numbers.push_back(static_cast<float>(10 * i));
      numbers.push_back(static_cast<float>(10 * i + 1));
      std::get<std::vector<float>>(label.values).push_back(static_cast<float>(i));
      std::get<std::vector<double>>(weight.values).push_back(i / 2.0);
    }
    const Object file = Object::create();
    file.put_blob("data", data);
    file.put_blob("label", label);
    file.put_blob("weight", weight);
    write_file(folder_ / name, file.bytes());
  }

  std::string text(int batch, std::string_view more = "", std::string_view list = "list") const {
    return base::concat(
        "name: 'h' type: 'HDF5Data' top: 'data' top: 'label' top: 'weight'\nhdf5_data_param { source: '",
        path(std::string(list)), "' batch_size: ", batch, " ", more, " }");
  }

  static std::vector<double> labels(Layer& layer, const ForwardContext& context) {
    return values_of(layer.forward(context, {})[1]);
  }

  TemporaryFolder folder_;
};

TEST_F(Hdf5Data, YieldsATopForEachDataset) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    Made made = make_layer(text(2), {}, dtype);
    EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 2, 1}, {2}, {2, 1}}));
    EXPECT_EQ(made.layer->records_per_batch(), 2u);
    const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 2, .record_stride = 2}, {});
    EXPECT_EQ(tops[0].scalar_type(), dtype);
    EXPECT_EQ(values_of(tops[0]),
              (std::vector<double>{20, 21, 30, 31}));  // the last of one file, the first of the next
    EXPECT_EQ(values_of(tops[1]), (std::vector<double>{2, 3}));
    EXPECT_EQ(values_of(tops[2]), (std::vector<double>{1, 1.5}));
  }
}

TEST_F(Hdf5Data, BeginsAnewBehindTheLastRow) {
  Made made = make_layer(text(3), {});
  EXPECT_EQ(labels(*made.layer, {.first_record = 3, .record_stride = 3}), (std::vector<double>{3, 4, 5}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 6, .record_stride = 3}), (std::vector<double>{6, 7, 0}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 8'000'000'000, .record_stride = 3}), (std::vector<double>{0, 1, 2}));
}

TEST_F(Hdf5Data, ReadsOnManyWorkersWhatOneWorkerReads) {
  for (const char* const more : {"", "shuffle: true"}) {
    Made whole = make_layer(text(4, more), {});
    Made first = make_layer(text(2, more), {});
    Made second = make_layer(text(2, more), {});
    for (std::uint64_t begin = 0; begin < 24; begin += 4) {
      std::vector<double> both = labels(*first.layer, {.first_record = begin, .record_stride = 4});
      const std::vector<double> rest = labels(*second.layer, {.first_record = begin + 2, .record_stride = 4});
      both.insert(both.end(), rest.begin(), rest.end());
      EXPECT_EQ(labels(*whole.layer, {.first_record = begin, .record_stride = 4}), both);
    }
  }
}

TEST_F(Hdf5Data, ShufflesFilesAndRowsAnewInEachPass) {
  Made made = make_layer(text(8, "shuffle: true"), {});
  std::map<std::vector<double>, int> orders;
  for (std::uint64_t pass = 0; pass < 30; ++pass) {
    const std::vector<double> order = labels(*made.layer, {.first_record = 8 * pass, .record_stride = 8});
    std::vector<double> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, (std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7}));
    // Rows of several files do not mix.
    const auto of_first = [](double row) { return row < 3; };
    EXPECT_TRUE(std::is_partitioned(order.begin(), order.end(), of_first) ||
                std::is_partitioned(order.rbegin(), order.rend(), of_first));
    ++orders[order];
  }
  EXPECT_GT(orders.size(), 25u);  // of 1,440
}

TEST_F(Hdf5Data, ExplainsWhatIsWrong) {
  const auto error = [&](const std::string& list) {
    write_file(folder_ / "bad", list);
    return testing::setup_error(text(1, "", "bad"), {});
  };
  EXPECT_EQ(
      testing::setup_error("name: 'h' type: 'HDF5Data' top: 'x' hdf5_data_param { batch_size: 1 }", {}),
      "net.prototxt:1:37: layer \"h\" (HDF5Data) needs a list of HDF5 files: hdf5_data_param { source: \"FILE\" }");
  EXPECT_NE(error(" \n").find("lists no file"), std::string::npos);
  EXPECT_NE(error(path("none.h5")).find("none.h5: there is no such file"), std::string::npos);
  write_file(folder_ / "text.h5", "words");
  EXPECT_NE(error(path("text.h5")).find("text.h5 is no HDF5 file"), std::string::npos);
  Object file = Object::create();
  file.put_blob("data", blob({2, 2, 1}, {1, 2, 3, 4}));
  write_file(folder_ / "one.h5", file.bytes());
  EXPECT_NE(error(path("one.h5")).find("one.h5: has no label"), std::string::npos) << error(path("one.h5"));
  file.put_blob("label", blob({3}, {1, 2, 3}));
  file.put_blob("weight", blob({2, 1}, {1, 2}));
  write_file(folder_ / "unequal.h5", file.bytes());
  EXPECT_NE(error(path("unequal.h5")).find("/label: has 3 rows, and "), std::string::npos);
  file = Object::create();
  file.put_blob("data", blob({1, 3, 1}, {1, 2, 3}));
  file.put_blob("label", blob({1}, {1}));
  file.put_blob("weight", blob({1, 1}, {1}));
  write_file(folder_ / "other.h5", file.bytes());
  EXPECT_NE(error(path("a.h5") + " " + path("other.h5")).find("other.h5: its rows are 3x1,,1, and those of "),
            std::string::npos);
  EXPECT_NE(testing::setup_error(text(1) + " transform_param { scale: 2 }", {}).find("transforms no data"),
            std::string::npos);
}

class Hdf5Output : public ::testing::Test {
 protected:
  void SetUp() override { ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1); }

  std::string text() const {
    return base::concat("name: 'out' type: 'HDF5Output' bottom: 'x' bottom: 'y' hdf5_output_param { file_name: '",
                        (folder_ / "out.h5").string(), "' }");
  }
  static std::vector<at::Tensor> rows(double first) {
    return {tensor_of({first, first + 1, first + 2, first + 3}, {2, 2}), tensor_of({first, first}, {2})};
  }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }

  TemporaryFolder folder_;
};

TEST_F(Hdf5Output, HasTheRowsOfAllPassesInTheEnd) {
  {
    Made made = make_layer(text(), {{2, 2}, {2}});
    for (const double first : {1, 5, 9}) made.layer->forward({.records = 2, .record_stride = 2}, rows(first));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.h5"));
  }
  EXPECT_EQ(files(), 1u);
  const Object file = Object::open(folder_ / "out.h5");
  const proto::Blob data = file.at("data").read_blob();
  EXPECT_EQ(data.shape, (std::vector<std::int64_t>{6, 2}));
  EXPECT_EQ(std::get<std::vector<double>>(data.values), (std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(std::get<std::vector<double>>(file.at("label").read_blob().values),
            (std::vector<double>{1, 1, 5, 5, 9, 9}));
}

TEST_F(Hdf5Output, IsCompleteWhenTheRunIsOver) {
  Made made = make_layer(text(), {{2, 2}, {2}});
  made.layer->finish();  // without a pass there is nothing to write
  EXPECT_EQ(files(), 0u);
  made.layer->forward({.records = 2, .record_stride = 2}, rows(1));
  made.layer->finish();
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(Object::open(folder_ / "out.h5").at("data").read_blob().shape, (std::vector<std::int64_t>{2, 2}));
}

// Files may have 256 bytes here, which the rows do and an HDF5 file does not fit into.
TEST_F(Hdf5Output, SaysWhatTheDiskRefuses) {
  Made made = make_layer(text(), {{2, 2}, {2}});
  made.layer->forward({.records = 2, .record_stride = 2}, rows(1));
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{256, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = testing_data::error_of([&] { made.layer->finish(); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  const std::string wanted = base::concat(
      "net.prototxt:1:1: layer \"out\" (HDF5Output) has written nothing: cannot write ", (folder_ / "out.h5").string());
  EXPECT_TRUE(error.starts_with(wanted)) << error;
  EXPECT_EQ(files(), 0u);
}

TEST_F(Hdf5Output, KeepsFloatsInAFloatNet) {
  {
    Made made = make_layer(text(), {{2, 2}, {2}}, at::kFloat);
    made.layer->forward({.records = 2}, {rows(1)[0].to(at::kFloat), rows(1)[1].to(at::kFloat)});
  }
  EXPECT_FALSE(Object::open(folder_ / "out.h5").at("data").is_double());
}

TEST_F(Hdf5Output, WritesAFileForEachOfSeveralWorkers) {
  {
    Made first = make_layer(text(), {{2, 2}, {2}});
    Made second = make_layer(text(), {{2, 2}, {2}});
    first.layer->forward({.first_record = 8, .records = 2, .record_stride = 4}, rows(1));
    second.layer->forward({.first_record = 10, .records = 2, .record_stride = 4}, rows(5));
  }
  for (const auto& [name, value] : {std::pair{"out.h5.0", 1.0}, {"out.h5.1", 5.0}}) {
    EXPECT_EQ(std::get<std::vector<double>>(Object::open(folder_ / name).at("label").read_blob().values)[0], value);
  }
}

TEST_F(Hdf5Output, WritesNothingWithoutAPassOrAfterAnError) {
  { Made made = make_layer(text(), {{2, 2}, {2}}); }
  EXPECT_EQ(files(), 0u);
  const std::string error = error_of([&] {
    Made made = make_layer(text(), {{2, 2}, {2}});
    made.layer->forward({.records = 2}, rows(1));
    made.layer->forward({.records = 2}, {tensor_of({1, 2, 3}, {1, 3}), tensor_of({1}, {1})});
  });
  EXPECT_NE(error.find("is given rows of the shape [1, 3], and was given [2, 2] before"), std::string::npos) << error;
  EXPECT_EQ(files(), 0u);
}

TEST_F(Hdf5Output, ExplainsWhatIsWrong) {
  EXPECT_NE(testing::setup_error("name: 'o' type: 'HDF5Output' bottom: 'x' bottom: 'y'", {{1}, {1}})
                .find("needs the name of the file to write"),
            std::string::npos);
  EXPECT_NE(testing::setup_error(text(), {{2, 2}, {3}}).find("needs as many rows in both bottoms"), std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe
