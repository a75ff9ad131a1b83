#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "cli/live_screen.h"

namespace relay::cli {

/// While it lives, what the process writes to standard output becomes a live table on the terminal
/// there, and the lines that it writes to standard error, where that is a terminal too, are shown
/// below. For programs whose messages go to standard output.
class LiveCapture {
 public:
  /// Null where standard output is no terminal that can show it: all stays as it is.
  static std::unique_ptr<LiveCapture> begin(std::string title);
  /// Standard output and standard error are as they were before, and the last state is shown.
  ~LiveCapture();
  LiveCapture(const LiveCapture&) = delete;
  LiveCapture& operator=(const LiveCapture&) = delete;

 private:
  /// One stream of the process: a pipe takes its place.
  class Stream {
   public:
    explicit Stream(int descriptor);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    void restore();
    int saved() const { return saved_; }
    int source() const { return source_; }
    /// Reads what has come; calls `use` for each line. False at the end.
    template <class Use>
    bool read_lines(const Use& use);

   private:
    int descriptor_;
    int saved_ = -1;
    int source_ = -1;
    std::string rest_;
  };

  explicit LiveCapture(std::string title);
  void run(std::stop_token stop);

  Stream out_;
  std::unique_ptr<Stream> errors_;
  LiveScreen screen_;
  std::jthread thread_;
};

}  // namespace relay::cli
