#include "base/text.h"
#include "caffe/data/data_bases.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using testing::error_of;
using testing::expect_near;
using testing::Made;
using testing::make_layer;
using testing::values_of;
using testing_data::TemporaryFolder;
using testing_data::write_numbered;

class Data : public ::testing::Test {
 protected:
  // Seven records, [1, 2, 2] of value i, label i.
  void SetUp() override {
    ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
    write_numbered(folder_ / "numbers", 7, 2);
  }

  std::string text(int batch, std::string_view more = "") const {
    return base::concat("name: 'data' type: 'Data' top: 'data' top: 'label'\ndata_param { source: '",
                        (folder_ / "numbers").string(), "' batch_size: ", batch, " backend: LMDB }", more);
  }

  static std::vector<double> labels(Layer& layer, const ForwardContext& context) {
    return values_of(layer.forward(context, {})[1]);
  }

  TemporaryFolder folder_;
};

TEST_F(Data, YieldsImagesAndLabelsInTheOrderOfTheKeys) {
  Made made = make_layer(text(3), {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{3, 1, 2, 2}, {3}}));
  EXPECT_EQ(made.layer->records_per_batch(), 3u);
  const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 0, .record_stride = 3}, {});
  expect_near(tops[0], {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}, 0);
  expect_near(tops[1], {0, 1, 2}, 0);
}

TEST_F(Data, BeginsAnewBehindTheLastRecord) {
  Made made = make_layer(text(3), {});
  EXPECT_EQ(labels(*made.layer, {.first_record = 3, .record_stride = 3}), (std::vector<double>{3, 4, 5}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 6, .record_stride = 3}), (std::vector<double>{6, 0, 1}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 9, .record_stride = 3}), (std::vector<double>{2, 3, 4}));
}

// Large images are made ready by several threads, in memory that is used again once nobody looks at it.
TEST_F(Data, GivesLargeImagesInMemoryThatStaysAsLongAsItIsHeld) {
  constexpr int kSide = 130;
  write_numbered(folder_ / "large", 7, kSide);
  for (const char* const threads : {"1", "3"}) {
    ::setenv("POSEIDON_DATA_THREADS", threads, 1);
    Made made = make_layer(base::concat("name: 'data' type: 'Data' top: 'data' top: 'label'\ndata_param { source: '",
                                        (folder_ / "large").string(), "' batch_size: 2 backend: LMDB }"),
                           {});
    std::vector<at::Tensor> held;  // views, of every third batch
    for (std::uint64_t i = 0; i < 30; ++i) {
      const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 2 * i, .record_stride = 2}, {});
      EXPECT_EQ(values_of(tops[1]), (std::vector<double>{static_cast<double>(2 * i % 7), static_cast<double>((2 * i + 1) % 7)}));
      if (i % 3 == 0) held.push_back(tops[0].view({2, kSide * kSide}));
    }
    for (std::size_t i = 0; i < held.size(); ++i) {
      for (const std::int64_t row : {0, 1}) {
        const double number = static_cast<double>((6 * i + static_cast<std::size_t>(row)) % 7);
        EXPECT_EQ(held[i][row].min().item<double>(), number);
        EXPECT_EQ(held[i][row].max().item<double>(), number);
      }
    }
  }
  ::unsetenv("POSEIDON_DATA_THREADS");
}

TEST_F(Data, ReadsOnManyWorkersWhatOneWorkerReads) {
  Made whole = make_layer(text(4), {});
  Made first = make_layer(text(2), {});
  Made second = make_layer(text(2), {});
  for (std::uint64_t iteration = 0; iteration < 5; ++iteration) {
    const std::uint64_t begin = 4 * iteration;
    std::vector<double> both = labels(*first.layer, {.first_record = begin, .record_stride = 4});
    const std::vector<double> rest = labels(*second.layer, {.first_record = begin + 2, .record_stride = 4});
    both.insert(both.end(), rest.begin(), rest.end());
    EXPECT_EQ(labels(*whole.layer, {.first_record = begin, .record_stride = 4}), both);
  }
}

TEST_F(Data, ReadsAPartOfItsOwnWhereDataAreNotShared) {
  // The seven records, dealt in turn: 0, 2, 4, 6 and 1, 3, 5.
  for (int part = 0; part < 2; ++part) {
    LmdbWriter writer({folder_ / base::concat("parts_", part)});
    for (int i = part; i < 7; i += 2) {
      writer.append(testing_data::numbered_key(i), proto::datum_bytes(testing_data::numbered_datum(i, 2)));
    }
    writer.finish();
  }
  const std::string text = base::concat("name: 'data' type: 'Data' top: 'data' top: 'label' data_param { source: '",
                                        (folder_ / "parts").string(),
                                        "/' batch_size: 2 backend: LMDB shared_file_system: false }");
  const auto part = [&](std::uint64_t rank) {
    return make_layer(text, {}, at::kDouble, Phase::kTrain, 1, {.rank = rank, .workers = 2});
  };
  Made first = part(0);
  Made second = part(1);
  const auto both = [&](std::uint64_t begin) {
    return std::pair(labels(*first.layer, {.first_record = begin, .record_stride = 4}),
                     labels(*second.layer, {.first_record = begin + 2, .record_stride = 4}));
  };
  using Labels = std::vector<double>;
  EXPECT_EQ(both(0), std::pair(Labels({0, 2}), Labels({1, 3})));
  EXPECT_EQ(both(4), std::pair(Labels({4, 6}), Labels({5, 1})));
  EXPECT_EQ(both(8), std::pair(Labels({0, 2}), Labels({3, 5})));
  EXPECT_EQ(both(0), std::pair(Labels({0, 2}), Labels({1, 3}))) << "also where a pass goes back";
  // Batches 0, 2, 4 ... of a test are one worker's, the others the other's.
  EXPECT_EQ(labels(*second.layer, {.first_record = 2, .record_stride = 4}), Labels({1, 3}));
  EXPECT_EQ(labels(*second.layer, {.first_record = 6, .record_stride = 4}), Labels({5, 1}));
}

TEST_F(Data, DrawsForPartsWhatItDrawsForTheWhole) {
  // One pixel is cut out of the record's four, which differ, at a place drawn for the record's number.
  const auto write = [&](const std::string& name, int first, int step) {
    LmdbWriter writer({folder_ / name});
    for (int i = first; i < 8; i += step) {
      proto::Datum datum = testing_data::numbered_datum(i, 2);
      for (std::size_t pixel = 0; pixel < 4; ++pixel) datum.bytes[pixel] = static_cast<char>(10 * pixel);
      writer.append(testing_data::numbered_key(i), proto::datum_bytes(datum));
    }
    writer.finish();
  };
  write("whole", 0, 1);
  const auto text = [&](const std::string& name, int batch, bool is_shared) {
    return base::concat("name: 'd' type: 'Data' top: 'data' data_param { backend: LMDB source: '",
                        (folder_ / name).string(), "' batch_size: ", batch, is_shared ? "" : " shared_file_system: false",
                        " } transform_param { crop_size: 1 }");
  };
  const std::vector<double> whole = values_of(make_layer(text("whole", 8, true), {}).layer->forward({}, {})[0]);
  for (std::uint64_t rank = 0; rank < 4; ++rank) {
    write(base::concat("whole_", rank), static_cast<int>(rank), 4);
    Made made = make_layer(text("whole", 2, false), {}, at::kDouble, Phase::kTrain, 1, {.rank = rank, .workers = 4});
    expect_near(made.layer->forward({.first_record = 2 * rank, .record_stride = 8}, {})[0],
                {whole[rank], whole[rank + 4]}, 0);
  }
}

TEST_F(Data, NamesTheWorkerWhosePartIsMissing) {
  const std::string source = (folder_ / "numbers").string();
  const std::string text = base::concat("name: 'd' type: 'Data' top: 'data' data_param { source: '", source,
                                        "' batch_size: 1 backend: LMDB\n  shared_file_system: false }");
  EXPECT_EQ(error_of([&] { make_layer(text, {}, at::kDouble, Phase::kTrain, 1, {.rank = 2, .workers = 3}); }),
            base::concat("net.prototxt:2:3: layer \"d\" (Data) has shared_file_system: false, so worker 2 reads its own "
                         "part of the data, ",
                         source, "_2, which is not there; `poseidon partition-data --turn ", source,
                         " 3` makes the parts of a data base"));
}

TEST_F(Data, GoesWhereAPassAsksItToGo) {
  Made made = make_layer(text(2), {});
  EXPECT_EQ(labels(*made.layer, {.first_record = 0, .record_stride = 2}), (std::vector<double>{0, 1}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 5, .record_stride = 2}), (std::vector<double>{5, 6}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 7, .record_stride = 6}), (std::vector<double>{0, 1}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 13, .record_stride = 6}), (std::vector<double>{6, 0}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 0, .record_stride = 2}), (std::vector<double>{0, 1}));
}

TEST_F(Data, ReadsALevelDbWhereNoBackendIsGiven) {
  write_numbered(folder_ / "level", 7, 2, Backend::kLevelDb);
  Made made = make_layer(base::concat("name: 'data' type: 'Data' top: 'data' top: 'label'\ndata_param { source: '",
                                      (folder_ / "level").string(), "' batch_size: 3 }"),
                         {});
  EXPECT_EQ(labels(*made.layer, {.first_record = 6, .record_stride = 3}), (std::vector<double>{6, 0, 1}));
  EXPECT_EQ(labels(*made.layer, {.first_record = 9, .record_stride = 3}), (std::vector<double>{2, 3, 4}));
}

TEST_F(Data, TransformsImages) {
  Made made = make_layer(text(2, "transform_param { scale: 0.5 mean_value: 1 }"), {});
  expect_near(made.layer->forward({.first_record = 3}, {})[0], {1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5}, 0);
}

TEST_F(Data, TakesTheOlderPlaceOfScale) {
  const std::string older = base::concat("name: 'd' type: 'Data' top: 'data' data_param { source: '",
                                         (folder_ / "numbers").string(), "' batch_size: 1 backend: LMDB scale: 0.5 }");
  expect_near(make_layer(older, {}).layer->forward({.first_record = 3}, {})[0], {1.5, 1.5, 1.5, 1.5}, 0);
  EXPECT_NE(
      testing::setup_error(older + " transform_param { scale: 2 }", {}).find("scale stands in transform_param too"),
      std::string::npos);
}

TEST_F(Data, YieldsFloatsInAFloatNet) {
  Made made = make_layer(text(2), {}, at::kFloat);
  const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 5}, {});
  EXPECT_EQ(tops[0].scalar_type(), at::kFloat);
  EXPECT_EQ(values_of(tops[1]), (std::vector<double>{5, 6}));
}

TEST_F(Data, SkipsTheSameNumberOnEveryWorker) {
  const std::string skipping =
      base::concat("name: 'data' type: 'Data' top: 'data' top: 'label' data_param { source: '",
                   (folder_ / "numbers").string(), "' batch_size: 1 backend: LMDB rand_skip: 1000 }");
  Made first = make_layer(skipping, {});
  Made second = make_layer(skipping, {});
  const std::uint32_t skipped = base::RandomStream(1, "data.rand_skip").words(0, 0, 0)[0] % 1000;
  EXPECT_EQ(labels(*first.layer, {.first_record = 0}), std::vector<double>{static_cast<double>(skipped % 7)});
  EXPECT_EQ(labels(*second.layer, {.first_record = 1}), std::vector<double>{static_cast<double>((skipped + 1) % 7)});
}

TEST_F(Data, ExplainsWhatIsWrong) {
  const auto error = [](const std::string& settings) {
    return testing::setup_error(base::concat("name: 'd' type: 'Data' top: 'data'\ndata_param { ", settings, " }"), {});
  };
  EXPECT_EQ(error("batch_size: 2 backend: LMDB"),
            "net.prototxt:2:1: layer \"d\" (Data) needs a data base: data_param { source: \"FOLDER\" }");
  EXPECT_EQ(error("source: 'x' backend: LMDB"), "net.prototxt:2:1: layer \"d\" (Data) needs batch_size, at least 1");
  const std::string lmdb = (folder_ / "numbers").string();
  EXPECT_NE(error(base::concat("batch_size: 2 source: '", lmdb, "'")).find("write backend: LMDB"), std::string::npos);
  const std::string missing = error("source: '/nowhere' batch_size: 2 backend: LMDB");
  EXPECT_EQ(missing.rfind("net.prototxt:1:1: layer \"d\" (Data) cannot read its records: ", 0), 0u) << missing;
  EXPECT_NE(missing.find("/nowhere"), std::string::npos) << missing;
}

TEST_F(Data, WantsImagesOfOneSize) {
  {
    LmdbWriter writer({folder_ / "mixed"});
    writer.append("0", proto::datum_bytes(testing_data::numbered_datum(0, 2)));
    writer.append("1", proto::datum_bytes(testing_data::numbered_datum(1, 3)));
    writer.finish();
  }
  Made made = make_layer(base::concat("name: 'd' type: 'Data' top: 'data' data_param { source: '",
                                      (folder_ / "mixed").string(), "' batch_size: 2 backend: LMDB }"),
                         {});
  const std::string error = error_of([&] { made.layer->forward({}, {}); });
  EXPECT_NE(error.find("record 1 (key 1): the image becomes [1, 3, 3], and the first one [1, 2, 2]"), std::string::npos)
      << error;
}

}  // namespace
}  // namespace poseidon::caffe
