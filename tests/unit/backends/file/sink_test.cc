#include "backends/file/sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <thread>

#include "backends/file/descriptor.h"
#include "messages.h"

namespace relay::file {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = Outcome::Kind;

class FileSinkTest : public testing::Test {
 protected:
  FileSinkTest() {
    char form[] = "/tmp/relay-file-XXXXXX";
    directory_ = ::mkdtemp(form);
    options_.path = (directory_ / "out.jsonl").string();
  }
  ~FileSinkTest() override { fs::remove_all(directory_); }

  std::string text() const { return read(options_.path); }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::string lines(int from, int count, std::size_t padding = 0) {
    std::string out;
    for (int n = from; n < from + count; ++n) out += Messages::body(n, padding) + "\n";
    return out;
  }
  static long count(const std::vector<Outcome>& outcomes, Kind kind) {
    return std::ranges::count(outcomes, kind, &Outcome::kind);
  }
  std::vector<Outcome> deliver(FileSink& sink, const Messages& messages) {
    return sink.deliver(messages.span(), Deadline::after(seconds(20)), {});
  }
  std::vector<fs::path> rotated() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      if (entry.path() != options_.path) found.push_back(entry.path());
    }
    std::ranges::sort(found);
    return found;
  }

  fs::path directory_;
  Options options_;
};

TEST_F(FileSinkTest, AppendsEachMessageAsALine) {
  FileSink sink(options_);
  ASSERT_TRUE(sink.open({}));
  EXPECT_EQ(count(deliver(sink, Messages::numbered(0, 3)), Kind::delivered), 3);
  EXPECT_EQ(count(deliver(sink, Messages::numbered(3, 5000, 300)), Kind::delivered), 5000);
  EXPECT_EQ(text(), lines(0, 3) + lines(3, 5000, 300));
}

TEST_F(FileSinkTest, GoesOnWhereAnEarlierRunEnded) {
  {
    FileSink sink(options_);
    deliver(sink, Messages::numbered(0, 2));
  }
  FileSink sink(options_);
  deliver(sink, Messages::numbered(2, 2));
  EXPECT_EQ(text(), lines(0, 4));
}

TEST_F(FileSinkTest, CutsOffAMessageThatACrashTore) {
  for (const std::size_t whole : {std::size_t{0}, std::size_t{2}, std::size_t{3000}}) {
    const auto before = lines(0, static_cast<int>(whole), 50);
    std::ofstream(options_.path, std::ios::binary | std::ios::trunc) << before << R"({"n":99,"p)";
    FileSink sink(options_);
    ASSERT_TRUE(sink.open({}));
    deliver(sink, Messages::numbered(7, 1));
    EXPECT_EQ(text(), before + lines(7, 1));
  }
}

TEST_F(FileSinkTest, LeavesAFileAloneThatAnotherWriterHas) {
  FileSink first(options_);
  ASSERT_TRUE(first.open({}));
  FileSink second(options_);
  const auto opened = second.open({});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, "file_in_use");
  EXPECT_EQ(opened.error().error_class, ErrorClass::transient);
  first.close();
  EXPECT_TRUE(second.open({}));
}

TEST_F(FileSinkTest, NamesTheRemedyWhereItCannotWrite) {
  options_.path = (directory_ / "absent" / "out").string();
  auto opened = FileSink(options_).open({});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().error_class, ErrorClass::misconfigured);
  EXPECT_FALSE(opened.error().remedy.empty());
  options_.path = directory_.string();
  opened = FileSink(options_).open({});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, "is_directory");
}

TEST_F(FileSinkTest, RejectsOnlyWhatTheFormatCannotHold) {
  options_.format = Format::csv;
  FileSink sink(options_);
  Messages messages;
  messages.add("a", "1");
  messages.add("b", std::string_view("\0", 1));
  messages.add("c", "3");
  const auto outcomes = deliver(sink, messages);
  EXPECT_EQ(outcomes[0].kind, Kind::delivered);
  EXPECT_EQ(outcomes[1].kind, Kind::rejected);
  EXPECT_EQ(outcomes[2].kind, Kind::delivered);
  EXPECT_EQ(text(),
            "id,subject,key,op,created_at,body\na,orders,k,insert,,1\nc,orders,k,insert,,3\n");
}

/// A limit on the size of files, as a disk that is full.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(FileSinkTest, LosesAndDoublesNothingWhenAWriteFallsShort) {
  FileSink sink(options_);
  const auto messages = Messages::numbered(0, 100, 30);
  const std::size_t line = Messages::body(10, 30).size() + 1;
  std::size_t written = 0;
  {
    const SizeLimit full(line * 40 + 7);
    const auto outcomes = deliver(sink, messages);
    written = static_cast<std::size_t>(count(outcomes, Kind::delivered));
    EXPECT_EQ(written, 40u);
    EXPECT_EQ(count(outcomes, Kind::unknown), 60);
    EXPECT_EQ(outcomes[40].error->code, "file_too_large");
    EXPECT_EQ(text(), lines(0, static_cast<int>(written), 30)) << "a torn message was left behind";
  }
  const auto rest = sink.deliver(messages.span().subspan(written), Deadline::after(seconds(5)), {});
  EXPECT_EQ(count(rest, Kind::delivered), 60);
  EXPECT_EQ(text(), lines(0, 100, 30));
}

TEST_F(FileSinkTest, WaitsForAFullDisk) {
  options_.path = "/dev/full";
  FileSink sink(options_);
  const auto outcomes = deliver(sink, Messages::numbered(0, 2));
  EXPECT_EQ(count(outcomes, Kind::unknown), 2);
  EXPECT_EQ(outcomes[0].error->code, "disk_full");
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::transient);
}

TEST_F(FileSinkTest, RotatesBySizeBetweenMessages) {
  options_.rotate_bytes = 1000;
  FileSink sink(options_);
  const auto outcomes = deliver(sink, Messages::numbered(0, 100, 60));
  EXPECT_EQ(count(outcomes, Kind::delivered), 100);
  std::string all;
  const auto files = rotated();
  EXPECT_GT(files.size(), 5u);
  for (const auto& file : files) {
    EXPECT_LE(fs::file_size(file), 1000u);
    all += read(file);
  }
  EXPECT_EQ(all + text(), lines(0, 100, 60));
}

TEST_F(FileSinkTest, BeginsEachFileOfCsvWithAHeader) {
  options_.rotate_bytes = 200;
  options_.format = Format::csv;
  FileSink sink(options_);
  deliver(sink, Messages::numbered(0, 10, 20));
  for (const auto& file : rotated()) EXPECT_TRUE(read(file).starts_with("id,subject,")) << file;
  EXPECT_TRUE(text().starts_with("id,subject,"));
}

TEST_F(FileSinkTest, RotatesByAge) {
  options_.rotate_interval = milliseconds(1);
  FileSink sink(options_);
  deliver(sink, Messages::numbered(0, 1));
  const auto old = std::chrono::steady_clock::now() + milliseconds(1500);
  while (rotated().empty() && std::chrono::steady_clock::now() < old) {
    deliver(sink, Messages::numbered(1, 1));
  }
  EXPECT_FALSE(rotated().empty());
}

TEST_F(FileSinkTest, CompressesWhatItRotated) {
  options_.rotate_bytes = 500;
  options_.compress_rotated = true;
  FileSink sink(options_);
  deliver(sink, Messages::numbered(0, 50, 60));
  std::string all;
  for (const auto& file : rotated()) {
    ASSERT_EQ(file.extension(), ".gz") << file;
    gzFile in = gzopen(file.c_str(), "rb");
    char buffer[4096];
    const int got = gzread(in, buffer, sizeof buffer);
    gzclose(in);
    ASSERT_GT(got, 0);
    all.append(buffer, static_cast<std::size_t>(got));
  }
  EXPECT_EQ(all + text(), lines(0, 50, 60));
}

TEST_F(FileSinkTest, FollowsWhenTheFileIsMoved) {
  FileSink sink(options_);
  deliver(sink, Messages::numbered(0, 1));
  fs::rename(options_.path, options_.path + ".old");
  deliver(sink, Messages::numbered(1, 1));
  EXPECT_EQ(text(), lines(1, 1));
}

class PipeTest : public FileSinkTest {
 protected:
  PipeTest() {
    options_.path = (directory_ / "pipe").string();
    EXPECT_EQ(::mkfifo(options_.path.c_str(), 0600), 0);
    reader_ = Descriptor(::open(options_.path.c_str(), O_RDONLY | O_NONBLOCK));
  }
  std::string drain() {
    std::string all;
    char buffer[65536];
    for (ssize_t got; (got = ::read(reader_.get(), buffer, sizeof buffer)) > 0;) {
      all.append(buffer, static_cast<std::size_t>(got));
    }
    return all;
  }
  Descriptor reader_;
};

TEST_F(PipeTest, DoesNotWaitForASlowReaderBeyondTheDeadlineAndTearsNothing) {
  FileSink sink(options_);
  const auto messages = Messages::numbered(0, 1000, 300);
  std::string all;
  std::span<const Message> left = messages.span();
  int calls = 0;
  while (!left.empty()) {
    const auto outcomes = sink.deliver(left, Deadline::after(milliseconds(20)), {});
    const auto done = static_cast<std::size_t>(count(outcomes, Kind::delivered));
    // In order: what is not delivered comes after what is.
    ASSERT_EQ(std::ranges::find(outcomes, Kind::unknown, &Outcome::kind) - outcomes.begin(),
              static_cast<long>(done));
    left = left.subspan(done);
    all += drain();
    ASSERT_LT(++calls, 100);
  }
  EXPECT_GT(calls, 1);
  EXPECT_EQ(all + drain(), lines(0, 1000, 300));
}

TEST_F(PipeTest, ASlowReaderDoesNotDelayAStop) {
  FileSink sink(options_);
  const auto messages = Messages::numbered(0, 1000, 300);
  std::stop_source stop;
  auto delivery = std::async(std::launch::async, [&] {
    return sink.deliver(messages.span(), Deadline::after(seconds(60)), stop.get_token());
  });
  EXPECT_EQ(delivery.wait_for(milliseconds(50)), std::future_status::timeout);
  stop.request_stop();
  ASSERT_EQ(delivery.wait_for(seconds(5)), std::future_status::ready);
  EXPECT_GT(count(delivery.get(), Kind::unknown), 0);
}

TEST_F(PipeTest, WritesTheHeaderOnceHoweverOftenTheSinkIsOpened) {
  options_.format = Format::csv;
  FileSink sink(options_);
  for (int n = 0; n < 2; ++n) {
    deliver(sink, Messages::numbered(n, 1));
    sink.close();
  }
  EXPECT_EQ(drain(),
            "id,subject,key,op,created_at,body\np:0,orders,k,insert,,\"{\"\"n\"\":0,\"\"p\"\":"
            "\"\"\"\"}\"\n"
            "p:1,orders,k,insert,,\"{\"\"n\"\":1,\"\"p\"\":\"\"\"\"}\"\n");
}

TEST_F(PipeTest, SaysThatTheReaderIsGone) {
  FileSink sink(options_);
  EXPECT_EQ(count(deliver(sink, Messages::numbered(0, 1)), Kind::delivered), 1);
  reader_.reset();
  const auto outcomes = deliver(sink, Messages::numbered(1, 1));
  ASSERT_EQ(outcomes[0].kind, Kind::unknown);
  EXPECT_EQ(outcomes[0].error->code, "reader_gone");
  EXPECT_FALSE(outcomes[0].error->remedy.empty());
}

}  // namespace
}  // namespace relay::file
