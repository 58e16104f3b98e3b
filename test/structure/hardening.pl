#!/usr/bin/perl
# The engine is linked and compiled so that a fault in it is harder to use: its tables of functions
# are read-only once it runs, stacks and copies of known size are checked, it may lie anywhere. And
# it does not say where it was built.
#
# Usage: test/structure/hardening.pl [--root DIRECTORY] [--objects DIRECTORY]
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;

my $root = abs_path(dirname(__FILE__) . "/../..");
my $objects;
while (my $option = shift)
{
	if    ($option eq '--root')    { $root = shift; }
	elsif ($option eq '--objects') { $objects = shift; }
	else                           { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";
$objects //= ($ENV{BUILD} || 'build') . '/release';
my $engine = "$objects/bicycle-engine";
if (!-e $engine)
{
	system("make -s $engine >/dev/null") == 0 or die "make $engine failed\n";
}

my $failed = 0;

sub check
{
	my ($what, $good) = @_;

	return if $good;
	print "FAILED: $engine $what\n";
	$failed++;
}

my $dynamic = `readelf -dW $engine`;
my $symbols = `readelf --dyn-syms -W $engine`;
my $code = `strings -a $engine`;
check('binds functions while it runs', $dynamic =~ /\bBIND_NOW\b|\bFLAGS.*\bNOW\b/);
check('has no RELRO segment', `readelf -lW $engine` =~ /GNU_RELRO/);
check('lies at a fixed address', `readelf -hW $engine` =~ /Type:\s+DYN/);
check('does not check stacks', $symbols =~ /__stack_chk_fail/);
check('does not check copies', $symbols =~ /__(mem|str|v?sn?printf)\w*_chk\b/);
check('names the directory it was built in', index($code, $root) < 0);
print "hardening: ", ($failed ? "$failed failed" : 'ok'), "\n";
exit($failed ? 1 : 0);
