class PgtrickleRelay < Formula
  desc "Relay between PostgreSQL and message systems"
  homepage "https://github.com/grove/pgtrickle-relay"
  url "@URL@"
  sha256 "@SHA256@"
  license "Apache-2.0"

  depends_on "cli11" => :build
  depends_on "cmake" => :build
  depends_on "ninja" => :build
  depends_on "pkgconf" => :build
  depends_on "tl-expected" => :build
  depends_on "tomlplusplus" => :build
  depends_on "boost"
  depends_on "cnats"
  depends_on "fmt"
  depends_on "hiredis"
  depends_on "jemalloc"
  depends_on "libpq"
  depends_on "librdkafka"
  depends_on "openssl@3"
  depends_on "prometheus-cpp"
  depends_on "rabbitmq-c"
  depends_on "simdjson"
  depends_on "spdlog"
  depends_on "yaml-cpp"

  uses_from_macos "curl"
  uses_from_macos "zlib"

  def install
    system "cmake", "-S", ".", "-B", "build", "-G", "Ninja", "-DRELAY_TESTS=OFF", *std_cmake_args
    system "cmake", "--build", "build"
    system "cmake", "--install", "build"
    (etc/"pgtrickle-relay").install "packaging/etc/relay.toml", "packaging/etc/postgres-stream.yaml"
    pkgshare.install "packaging/monitoring"
  end

  service do
    run [opt_bin/"pgtrickle-relay", "run", "--config", etc/"pgtrickle-relay/relay.toml"]
    keep_alive successful_exit: false
    log_path var/"log/pgtrickle-relay.log"
    error_log_path var/"log/pgtrickle-relay.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/pgtrickle-relay --version")
    assert_match "CREATE SCHEMA", shell_output("#{bin}/pgtrickle-relay init --dry-run").upcase
  end
end
