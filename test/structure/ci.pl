#!/usr/bin/perl
# Whether .ci/run says how its parts ended: by its exit status, of parts before and beside the
# servers' tests. It runs in a tree of stand-ins, whose parts do nothing and fail where asked.

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

chdir(dirname(abs_path($0)) . '/../..') or die $!;
my $tree = tempdir(CLEANUP => 1);
my $failed = 0;

sub stand_in
{
	my ($name, $text) = @_;

	open my $file, '>', "$tree/$name" or die "$name: $!";
	print $file $text;
	close $file;
	chmod 0755, "$tree/$name";
}

# ci(PARTS, FAIL, STATUS, LAST): runs them; the stand-in that FAIL names fails
sub ci
{
	my ($parts, $fail, $expected, $last) = @_;
	my $said = `cd $tree && FAIL=$fail TMPDIR=$tree/tmp .ci/run $parts 2>&1`;
	my $status = $? >> 8;
	my @left = glob "$tree/tmp/*";

	return if $status == $expected && $said =~ /^\Q$last\E$/m && !@left;
	print "not ok: .ci/run $parts, where \"$fail\" fails: exit status $status, not $expected;",
	  " left @left; said:\n$said";
	$failed = 1;
}

make_path("$tree/.ci", "$tree/test/cuda", "$tree/tmp");
copy('.ci/run', "$tree/.ci/run") or die "copy: $!";
chmod 0755, "$tree/.ci/run";
stand_in('Makefile', qq(all: ;\n.PHONY: FORCE\n%: FORCE\n\t\@test "\$\$FAIL" != \$\@\n));
stand_in('test/install-deps.sh', "#!/bin/sh\n");
stand_in('test/run.sh', qq(#!/bin/sh\n[ "\$FAIL" != "\$1" ]\n));
stand_in('test/cuda/simulate.sh', qq(#!/bin/sh\n[ "\$FAIL" != simulate ]\n));

ci('structure tests arm gpu', '', 0, 'all passed');
ci('structure tests', 'structure', 1, 'FAILED: structure');
ci('structure tests', 'test', 1, 'FAILED: tests');
ci('tests gpu', 'engine', 1, 'FAILED: building for what follows');
ci('arm gpu', 'aarch64', 1, "FAILED: Arm's processors, emulated");
ci('arm gpu', 'simulate', 1, 'FAILED: the run on a GPU, simulated');
ci('nonsense', '', 2, '.ci/run: what is nonsense?');
exit $failed;
