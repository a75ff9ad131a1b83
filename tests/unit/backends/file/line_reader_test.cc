#include "backends/file/line_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace relay::file {
namespace {

/// A file without a name that holds `text`.
class Input {
 public:
  explicit Input(const std::string& text) : file_(std::tmpfile()) {
    std::fwrite(text.data(), 1, text.size(), file_);
    std::fflush(file_);
    ::lseek(descriptor(), 0, SEEK_SET);
  }
  ~Input() { std::fclose(file_); }
  int descriptor() const { return ::fileno(file_); }

 private:
  std::FILE* file_;
};

std::vector<std::string> lines_of(const std::string& text, std::vector<std::int64_t>* ends = {}) {
  const Input input(text);
  LineReader reader(input.descriptor(), 0, 1'000'000);
  std::vector<std::string> lines;
  const auto keep = [&](const Line& line) {
    lines.emplace_back(line.text);
    if (ends != nullptr) ends->push_back(line.next);
  };
  while (*reader.read_more() > 0) {
    while (const auto line = reader.next()) keep(*line);
  }
  if (const auto line = reader.rest()) keep(*line);
  return lines;
}

TEST(LineReader, CutsLinesAndCountsTheirPlaces) {
  std::vector<std::int64_t> ends;
  EXPECT_EQ(lines_of("a\nbc\r\n\nd", &ends), (std::vector<std::string>{"a", "bc", "", "d"}));
  EXPECT_EQ(ends, (std::vector<std::int64_t>{2, 6, 7, 8}));
}

TEST(LineReader, LosesNoByteWhateverTheText) {
  rc::check([](const std::vector<std::string>& texts) {
    std::string all;
    std::vector<std::string> wanted;
    for (std::string text : texts) {
      std::erase_if(text, [](char c) { return c == '\n' || c == '\r'; });
      all += text + "\n";
      wanted.push_back(text);
    }
    RC_ASSERT(lines_of(all) == wanted);
  });
}

TEST(LineReader, KeepsOnlyTheBeginningOfALineThatIsTooLong) {
  const Input input("a\n" + std::string(2'000'000, 'x') + "\nb\n");
  LineReader reader(input.descriptor(), 0, 10'000);
  std::vector<Line> places;
  std::vector<std::size_t> sizes;
  while (*reader.read_more() > 0) {
    while (const auto line = reader.next()) {
      places.push_back(*line);
      sizes.push_back(line->text.size());
    }
  }
  ASSERT_EQ(places.size(), 3u);
  EXPECT_TRUE(places[1].too_long);
  EXPECT_LE(sizes[1], 1024u);
  EXPECT_EQ(places[1].next, 2 + 2'000'001);
  EXPECT_FALSE(places[2].too_long);
  EXPECT_EQ(places[2].offset, 2 + 2'000'001);
}

}  // namespace
}  // namespace relay::file
