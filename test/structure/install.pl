#!/usr/bin/perl
# Installing says what is missing where there are no server's headers, and without CUDA takes away
# the device that an installation before it has left.
#
# Usage: test/structure/install.pl [--root DIRECTORY] [--objects DIRECTORY]
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;

my $root = abs_path(dirname(__FILE__) . "/../..");
while (my $option = shift)
{
	if    ($option eq '--root')    { $root = shift; }
	elsif ($option eq '--objects') { shift; }
	else                           { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES)};

my $failed = 0;

sub check
{
	my ($what, $good, $said) = @_;

	return if $good;
	print "FAILED: $what: $said\n";
	$failed++;
}

foreach my $target (qw(all install uninstall installcheck))
{
	my $said = `make -s PG_CONFIG=/nonexistent/pg_config NVCC= $target 2>&1`;

	my $good = $? != 0 && $said =~ /^no PGXS found/;
	check("make $target without a server", $good, $said);
}
if (`pg_config --pgxs 2>/dev/null`)
{
	my $said = `make -n NVCC= install-engine 2>&1`;

	my $good = $? == 0 && $said =~ /install.*bicycle-engine/
	  && $said =~ /^rm -f\s[^']*'[^']*bicycle_cuda\.so'$/m;
	check('what is installed without CUDA', $good, substr($said, -500));
}
print "install: ", ($failed ? "$failed failed" : 'ok'), "\n";
exit($failed ? 1 : 0);
