#include "engines/caffe/tools/parse_log.h"

#include <gtest/gtest.h>

#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

// Lines as Caffe 1.0 writes them. The second test comes after midnight on New Year's Eve.
constexpr const char* kCaffeLog =
    "Log file created at: 2014/12/31 23:59:00\n"
    "I1231 23:59:30.000000 25210 caffe.cpp:251] Starting Optimization\n"
    "I1231 23:59:40.500000 25210 solver.cpp:279] Solving LeNet\n"
    "I1231 23:59:40.600000 25210 solver.cpp:337] Iteration 0, Testing net (#0)\n"
    "I1231 23:59:41.500000 25210 solver.cpp:404]     Test net output #0: accuracy = 0.0727\n"
    "I1231 23:59:41.500000 25210 solver.cpp:404]     Test net output #1: loss = 2.4 (* 1 = 2.4 loss)\n"
    "I1231 23:59:42.000000 25210 solver.cpp:228] Iteration 0, loss = 2.41\n"
    "I1231 23:59:42.000000 25210 solver.cpp:244]     Train net output #0: loss = 2.42 (* 1 = 2.42 loss)\n"
    "I1231 23:59:42.000000 25210 sgd_solver.cpp:106] Iteration 0, lr = 0.01\n"
    "I1231 23:59:52.000000 25210 solver.cpp:218] Iteration 100 (10 iter/s, 10s/100 iters), loss = 0.5\n"
    "I1231 23:59:52.500000 25210 solver.cpp:237]     Train net output #0: loss = 0.25 (* 1 = 0.25 loss)\n"
    "I1231 23:59:52.500000 25210 sgd_solver.cpp:105] Iteration 100, lr = 0.005\n"
    "I0101 00:00:10.500000 25210 solver.cpp:330] Iteration 150, Testing net (#0)\n"
    "I0101 00:00:10.500000 25210 solver.cpp:397]     Test net output #0: accuracy = 0.5\n"
    "I0101 00:00:10.500000 25210 solver.cpp:397]     Test net output #1: loss = nan (* 1 = nan loss)\n"
    "I0101 00:00:10.500000 25210 solver.cpp:330] Iteration 150, Testing net (#1)\n"
    "I0101 00:00:10.500000 25210 solver.cpp:397]     Test net output #0: accuracy = 0.75\n";

TEST(ParseLog, ReadsCaffesLogs) {
  const TrainingLog log = parse_log(kCaffeLog, "x.log");
  EXPECT_EQ(log_table(log.train, ','),
            "NumIters,Seconds,LearningRate,loss\n"
            "0,1.5,0.01,2.42\n"
            "100,12,0.005,0.25\n");
  EXPECT_EQ(log_table(log.test, ';'),
            "NumIters;Seconds;LearningRate;accuracy;loss;net1_accuracy\n"
            "0;1;0.01;0.0727;2.4;\n"
            "150;30;0.005;0.5;nan;0.75\n");
}

TEST(ParseLog, ReadsTimesOfEveryKind) {
  const auto seconds = [](const std::string& head, const std::string& first, const std::string& second) {
    const TrainingLog log = parse_log(head + "I" + first + " 1 solver.cpp:1] Solving \nI" + second +
                                          " 1 solver.cpp:1] Iteration 1, loss = 1\nI" + second +
                                          " 1 solver.cpp:1]     Train net output #0: loss = 1\n",
                                      "x.log");
    return log.train.at(0).seconds;
  };
  EXPECT_EQ(seconds("", "0228 23:59:59.000000", "0301 00:00:01.000000"), 2);
  EXPECT_EQ(seconds("Log file created at: 2016/02/28 23:00:00\n", "0228 23:59:59.000000", "0301 00:00:01.000000"),
            86402);
  EXPECT_EQ(seconds("", "1231 23:59:59.000000", "0101 00:00:01.500000"), 2.5);
  EXPECT_EQ(seconds("", "20231231 23:59:59.000000", "20240101 00:00:01.500000"), 2.5);
}

TEST(ParseLog, KeepsTheRowsOfATrainingThatBeganAnew) {
  const std::string line = "I1231 23:59:52.000000 1 solver.cpp:1] ";
  const auto row = [&](int iteration) {
    return line + "Iteration " + std::to_string(iteration) + ", loss = 1\n" + line +
           "    Train net output #0: loss = 1\n";
  };
  EXPECT_EQ(log_table(parse_log(row(0) + row(10) + row(0), "x.log").train, ','),
            "NumIters,Seconds,LearningRate,loss\n0,nan,nan,1\n10,nan,nan,1\n0,nan,nan,1\n");
}

// 128 samples an iteration: 64 of two workers.
constexpr const char* kPoseidonLog =
    "lenet_solver.prototxt: 2 workers with 1 thread each; logs and plan in poseidon-runs/x\n"
    "test at 0: accuracy 0.1, loss 2.3\n"
    " iteration       loss       rate  samples/s  waiting\n"
    "         0      2.345       0.01       1280    0.0 %\n"
    "        10     1.5e-2      0.005       2560   12.5 %\n"
    "test at 20: accuracy 0.5, loss 0.25\n"
    "test at 20, net 1: accuracy 0.75, loss nan\n"
    "        20        nan      0.005       2560    1.5 %\n"
    "snapshot at 20: snapshots/x.solverstate\n";

TEST(ParseLog, ReadsPoseidonsLogs) {
  const std::string summary =
      "\n21 iterations, 2688 samples in 1.1 s: 2443 samples/s; workers waited for sums 2.0 % of the time\n";
  const TrainingLog log = parse_log(kPoseidonLog + summary, "x.log");
  EXPECT_EQ(log_table(log.train, ','),
            "NumIters,Seconds,LearningRate,loss\n"
            "0,0.1,0.01,2.345\n"
            "10,0.6,0.005,0.015\n"
            "20,1.1,0.005,nan\n");
  EXPECT_EQ(log_table(log.test, ','),
            "NumIters,Seconds,LearningRate,accuracy,loss,net1_accuracy,net1_loss\n"
            "0,0.1,0.01,0.1,2.3,,\n"
            "20,1.1,0.005,0.5,0.25,0.75,nan\n");
}

TEST(ParseLog, DoesNotGuessTheSecondsOfAnInterruptedLog) {
  EXPECT_EQ(log_table(parse_log(kPoseidonLog, "x.log").train, ','),
            "NumIters,Seconds,LearningRate,loss\n"
            "0,nan,0.01,2.345\n"
            "10,nan,0.005,0.015\n"
            "20,nan,0.005,nan\n");
}

TEST(ParseLog, CountsTheFirstLineOfAResumedTrainingOnce) {
  const TrainingLog log = parse_log(
      " iteration       loss       rate  samples/s  waiting\n"
      "       300        1.0       0.01        100    0.0 %\n"
      "       310        1.0       0.01        100    0.0 %\n"
      "\n20 iterations, 200 samples in 2.0 s: 100 samples/s\n",
      "x.log");
  EXPECT_EQ(log_table(log.train, ','), "NumIters,Seconds,LearningRate,loss\n300,0.1,0.01,1\n310,1.1,0.01,1\n");
}

TEST(ParseLog, RefusesWhatIsNoLog) {
  const auto error = [](std::string_view text) {
    return testing_data::error_of([&] { static_cast<void>(parse_log(text, "x.log")); });
  };
  const std::string wanted = "x.log: has no line of training or testing, neither Caffe's nor `poseidon train`'s";
  EXPECT_EQ(error(""), wanted);
  EXPECT_EQ(error("Iteration\nTrain net output #\n1 2 3 4 5 %\ntest at x: y z\n] \nI9999 99:99:99 ] Iteration 1 lr = "),
            wanted);
}

}  // namespace
}  // namespace poseidon::caffe
