#include "backends/file/position_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "backends/file/rotated.h"

namespace relay::file {
namespace {

namespace fs = std::filesystem;

class Directory : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/relay-position-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(path_); }

  std::string at(const std::string& name) const { return (path_ / name).string(); }
  /// Makes a file that was last written that many seconds ago; which one it is.
  FilePosition make(const std::string& name, int age = 0) {
    std::ofstream(at(name)) << "x\n";
    fs::last_write_time(at(name), fs::file_time_type::clock::now() - std::chrono::seconds(age));
    const auto way = way_on(at(name), {});
    return way->files.front().start;
  }
  std::vector<std::string> names(const WayOn& way) const {
    std::vector<std::string> found;
    for (const FoundFile& file : way.files) found.push_back(fs::path(file.path).filename());
    return found;
  }

  fs::path path_;
};

using PositionFiles = Directory;
using Rotated = Directory;

TEST_F(PositionFiles, KeepWhatIsWritten) {
  const PositionFile file(at("p"));
  EXPECT_FALSE(*file.read());
  const FilePosition position{1, 2, 3'000'000'000'000};
  ASSERT_TRUE(file.write(position));
  ASSERT_TRUE(file.write(position));
  EXPECT_EQ(**file.read(), position);
}

TEST_F(PositionFiles, ThatAreSomethingElseAreNotTaken) {
  std::ofstream(at("p")) << "my diary";
  const auto read = PositionFile(at("p")).read();
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().error_class, ErrorClass::misconfigured);
}

TEST_F(PositionFiles, ThatCannotBeWrittenAreAMistake) {
  const auto written = PositionFile(at("no/where")).write({});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().error_class, ErrorClass::misconfigured);
}

TEST_F(Rotated, TheFirstFileIsTheOneOfThatName) {
  make("in");
  const auto way = way_on(at("in"), {});
  EXPECT_EQ(names(*way), std::vector<std::string>{"in"});
  EXPECT_TRUE(way->lost);
}

TEST_F(Rotated, FilesBehindTheOneThatWasReadFollowInTheirOrder) {
  make("in.3", 300);
  FilePosition position = make("in.2", 200);
  position.offset = 1;
  make("in.1", 100);
  make("in.1.gz", 50);
  make("in-other", 50);
  make("in", 400);
  const auto way = way_on(at("in"), position);
  EXPECT_EQ(names(*way), (std::vector<std::string>{"in.2", "in.1", "in"}));
  EXPECT_EQ(way->files[0].start, position);
  EXPECT_EQ(way->files[1].start.offset, 0);
  EXPECT_FALSE(way->lost);
}

TEST_F(Rotated, OneThatIsGoneIsTold) {
  make("in");
  const auto way = way_on(at("in"), {1, 1, 5});
  EXPECT_TRUE(way->lost);
  EXPECT_EQ(way->files.front().start.offset, 0);
}

TEST_F(Rotated, NothingIsThere) {
  EXPECT_TRUE(way_on(at("in"), {})->files.empty());
}

}  // namespace
}  // namespace relay::file
