#!/usr/bin/perl
# Is everything in the format that a reader's window shows?
#
# Usage: test/structure/format.pl [--root DIRECTORY]
#
# C: what clang-format makes of it, code at most 100 columns, comments that have their lines for
# themselves at most 80. Tables, scripts, SQL, makefiles: at most 100. Documents: at most 120, but
# for tables. A tab is four columns. Without clang-format of the version that CLANG_FORMAT says,
# lengths only.
use strict;
use warnings;
use open qw(:std :encoding(UTF-8));
use Cwd qw(abs_path);
use File::Basename;

use constant CLANG_FORMAT => 14;

my $root = abs_path(dirname(__FILE__) . "/../..");
while (my $option = shift)
{
	if    ($option eq '--root')    { $root = shift; }
	elsif ($option eq '--objects') { shift; }
	else                           { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";

my @found = split ' ', `find . \\( -name build -o -name '.git' -o -name data -o -name shared \\) \\
	-prune -o -type f -print | sed 's,^\\./,,' | LC_ALL=C sort`;
my @c = grep { /\.(c|h|cu|cuh)$/ } @found;
my @scripts = grep { m{\.(def|pl|pm|sql|sh|py|spec|mk)$|^Makefile$|^\.ci/run$} } @found;
# What is built, or frozen with a release.
@scripts = grep { !m{bicycle--.*\.sql$} } @scripts;
my @documents = grep { /\.md$/ } @found;
my $failed = 0;

# The first 30 are enough at once; ALL=1000 shows more.
sub fail { print "FAILED: @_\n" if $failed++ < ($ENV{ALL} || 30); }

sub columns
{
	my $line = shift;
	1 while $line =~ s/^([^\t]*)\t/$1 . ' ' x (4 - length($1) % 4)/e;
	return length $line;
}

sub check
{
	my ($path, $limit_of) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	while (my $line = <$in>)
	{
		chomp $line;
		my $limit = $limit_of->($line);
		my $columns = columns($line);
		fail("$path:$.: $columns columns, at most $limit") if $limit && $columns > $limit;
		fail("$path:$.: other tests use tmp_check too; scratch() is this test's own")
		  if $path =~ m{^test/t/} && $line =~ /tmp_check/;
		fail("$path:$.: a space at the end") if $line =~ /[ \t]$/ && $path !~ /\.md$/;
	}
	close $in;
}

foreach my $path (@c)
{
	my $comment = 0;
	check($path, sub {
		my $line = shift;
		my $own = $comment || $line =~ m{^\s*/[*/]};
		$comment = $line !~ m{\*/} if $comment || $line =~ m{^\s*/\*};
		$own = 0 if $line =~ m{\*/\s*\S};
		return $own ? 80 : 100;
	});
}
foreach my $path (@scripts)
{
	my $body = 0;
	check($path, sub {
		# A function's body is stored as it stands: to wrap it would be a change of the function.
		my $own = $body;
		$body ^= 1 & (() = $_[0] =~ /\$\$/g) if $path eq 'sql/bicycle.sql';
		return $own && $body ? 0 : 100;
	});
}
check($_, sub { return $_[0] =~ /^\s*\|/ ? 0 : 120; }) foreach @documents;

my @path = split /:/, $ENV{PATH};
my $program = (grep { -x } map({ "$_/clang-format-@{[CLANG_FORMAT]}" } @path),
	map { "$_/clang-format" } @path)[0];
my ($version) = $program ? `$program --version` =~ /version (\d+)/ : ();
if (($version || 0) != CLANG_FORMAT)
{
	printf "clang-format: %s, so lengths only; its version %d is what the code was formatted by\n",
	  $version ? "version $version" : "none here", CLANG_FORMAT;
}
else
{
	open my $out, '-|', "$program --dry-run -Werror @c 2>&1" or die "$program: $!\n";
	while (<$out>)
	{
		fail("$1, clang-format -i would change it") if /^(\S+:\d+):\d+: error/;
	}
	close $out;
	fail("clang-format ended with $?") if $? && !$failed;
}
printf "%d files in C, %d scripts, %d documents\n", scalar @c, scalar @scripts, scalar @documents;
print $failed ? "format: $failed failed\n" : "format: ok\n";
exit($failed ? 1 : 0);
